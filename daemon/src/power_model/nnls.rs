//! Least squares with weights that are not negative, from normal equations: the active-set method of Lawson and Hanson
//! (Solving Least Squares Problems, 1974, chapter 23). At most [`MOST_TERMS`] unknowns, so a solve costs microseconds.

use super::basis::MOST_TERMS;

/// Sums of a weighted least-squares problem: `a = Σ w·φφᵀ` and `b = Σ w·φy`, both divided by `y²` of each sample, so
/// that errors are relative. Sums of parts can be added and subtracted: leaving a part out costs no second pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Number of terms.
    pub terms: usize,
    /// Upper triangle by rows.
    pub a: [f64; TRIANGLE],
    /// Right side.
    pub b: [f64; MOST_TERMS],
    /// Sum of the weights.
    pub weight: f64,
}

/// Entries of the upper triangle of the largest problem.
pub const TRIANGLE: usize = MOST_TERMS * (MOST_TERMS + 1) / 2;

/// Where row `row`, column `column` (not before `row`) is in the triangle.
const fn at(row: usize, column: usize) -> usize {
    row * MOST_TERMS - row * (row + 1) / 2 + column
}

impl Sums {
    /// Of no sample.
    pub const fn new(terms: usize) -> Self {
        Self { terms, a: [0.0; TRIANGLE], b: [0.0; MOST_TERMS], weight: 0.0 }
    }

    /// One entry of the matrix; `column` is not before `row`, and both are terms.
    pub fn entry(&self, row: usize, column: usize) -> f64 {
        self.a[at(row, column)]
    }

    /// Sets an entry of the matrix.
    pub fn set_entry(&mut self, row: usize, column: usize, value: f64) {
        self.a[at(row, column)] = value;
    }

    /// Adds a sample of power `watts` (above 0) with its weight.
    pub fn add(&mut self, values: &[f64; MOST_TERMS], watts: f64, weight: f64) {
        let relative = values.map(|value| value / watts);
        for row in 0..self.terms {
            for column in row..self.terms {
                self.a[at(row, column)] += weight * relative[row] * relative[column];
            }
            self.b[row] += weight * relative[row];
        }
        self.weight += weight;
    }

    /// Adds `factor` times the sums of `other`.
    pub fn add_sums(&mut self, other: &Self, factor: f64) {
        self.a.iter_mut().zip(&other.a).for_each(|(own, other)| *own += factor * other);
        self.b.iter_mut().zip(&other.b).for_each(|(own, other)| *own += factor * other);
        self.weight += factor * other.weight;
    }

    /// Forgets: all sums become `factor` times themselves.
    pub fn scale(&mut self, factor: f64) {
        self.a.iter_mut().chain(&mut self.b).for_each(|sum| *sum *= factor);
        self.weight *= factor;
    }

    /// The weights that fit best, none negative.
    ///
    /// `ridge` is added to the diagonal of the scaled problem for every term but the first, which is 1: where the
    /// samples cannot tell a constant power from a term that hardly changes in them, the constant gets it. Without
    /// that, a machine that was never seen at rest is predicted to draw next to nothing there.
    pub fn solve(&self, ridge: f64) -> [f64; MOST_TERMS] {
        let n = self.terms;
        let mut scale = [1.0; MOST_TERMS];
        for (term, scale) in scale.iter_mut().enumerate().take(n) {
            let diagonal = self.a[at(term, term)];
            *scale = if diagonal > 0.0 { diagonal.sqrt() } else { 1.0 };
        }
        let mut a = [[0.0; MOST_TERMS]; MOST_TERMS];
        let mut b = [0.0; MOST_TERMS];
        for row in 0..n {
            for column in row..n {
                let value = self.a[at(row, column)] / (scale[row] * scale[column]);
                (a[row][column], a[column][row]) = (value, value);
            }
            // Terms that are equal in all samples would have no single solution.
            a[row][row] += 1e-10 + if row == 0 { 0.0 } else { ridge };
            b[row] = self.b[row] / scale[row];
        }
        let mut x = active_set(&a, &b, n);
        x.iter_mut().zip(scale).for_each(|(x, scale)| *x /= scale);
        x
    }
}

type Matrix = [[f64; MOST_TERMS]; MOST_TERMS];
type Vector = [f64; MOST_TERMS];

fn active_set(a: &Matrix, b: &Vector, n: usize) -> Vector {
    let mut x = [0.0; MOST_TERMS];
    let mut free = [false; MOST_TERMS];
    let enough = 1e-9 * b.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    // Each round frees one term; rounding could make it go on for ever.
    for _ in 0..8 * n {
        let gradient = |row: usize| b[row] - (0..n).map(|column| a[row][column] * x[column]).sum::<f64>();
        let steepest = (0..n)
            .filter(|row| !free[*row])
            .map(|row| (row, gradient(row)))
            .filter(|(_, gradient)| *gradient > enough)
            .max_by(|(_, one), (_, other)| one.total_cmp(other));
        let Some((steepest, _)) = steepest else { break };
        free[steepest] = true;
        loop {
            // Not independent of the free terms: what was found without it is as good.
            let Some(solution) = solve_free(a, b, n, &free) else { return x };
            let negative = (0..n).filter(|row| free[*row] && solution[*row] <= 0.0);
            let step = negative.map(|row| (row, x[row] / (x[row] - solution[row])));
            // 0/0: a term that was freed and fits best at 0.
            let step = step.map(|(row, step)| (row, if step.is_finite() { step } else { 0.0 }));
            let Some((first, step)) = step.min_by(|(_, one), (_, other)| one.total_cmp(other)) else {
                x = solution;
                break;
            };
            for row in 0..n {
                x[row] += step * (solution[row] - x[row]);
                if row == first || (free[row] && x[row] <= 1e-14) {
                    (x[row], free[row]) = (0.0, false);
                }
            }
            if !free.contains(&true) {
                break;
            }
        }
    }
    x
}

/// Solves the rows and columns of the free terms by Cholesky's decomposition; `None` where they are not independent.
fn solve_free(a: &Matrix, b: &Vector, n: usize, free: &[bool; MOST_TERMS]) -> Option<Vector> {
    let rows: Vec<usize> = (0..n).filter(|row| free[*row]).collect();
    let mut l = [[0.0; MOST_TERMS]; MOST_TERMS];
    let mut x = [0.0; MOST_TERMS];
    for i in 0..rows.len() {
        for j in 0..=i {
            let rest = a[rows[i]][rows[j]] - (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
            l[i][j] = if i == j { (rest > 0.0).then(|| rest.sqrt())? } else { rest / l[j][j] };
        }
    }
    for i in 0..rows.len() {
        x[i] = (b[rows[i]] - (0..i).map(|k| l[i][k] * x[k]).sum::<f64>()) / l[i][i];
    }
    for i in (0..rows.len()).rev() {
        x[i] = (x[i] - (i + 1..rows.len()).map(|k| l[k][i] * x[k]).sum::<f64>()) / l[i][i];
    }
    let mut solution = [0.0; MOST_TERMS];
    rows.iter().zip(x).for_each(|(row, x)| solution[*row] = x);
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> [f64; MOST_TERMS] {
        let mut row = [0.0; MOST_TERMS];
        row[..values.len()].copy_from_slice(values);
        row
    }

    #[test]
    fn an_exact_line_is_found_and_parts_can_be_left_out() {
        let (mut low, mut high) = (Sums::new(2), Sums::new(2));
        for step in 0..10 {
            let u = f64::from(step) / 10.0;
            let of = if step < 5 { &mut low } else { &mut high };
            of.add(&row(&[1.0, u]), 30.0 + 70.0 * u, 1.0);
        }
        let mut all = low.clone();
        all.add_sums(&high, 1.0);
        let x = all.solve(0.0);
        assert!((x[0] - 30.0).abs() < 1e-3 && (x[1] - 70.0).abs() < 1e-3, "{x:?}");
        all.add_sums(&low, -1.0);
        let rest = all.solve(0.0);
        assert!((rest[0] - 30.0).abs() < 0.1 && (rest[1] - 70.0).abs() < 0.1, "{rest:?}");
    }

    #[test]
    fn no_weight_is_negative() {
        let mut sums = Sums::new(3);
        for step in 1..20 {
            let u = f64::from(step) / 20.0;
            // A power that falls with the last term.
            sums.add(&row(&[1.0, u, u * u]), 50.0 + 40.0 * u - 30.0 * u * u, 1.0);
        }
        let x = sums.solve(1e-3);
        assert!(x.iter().all(|x| *x >= 0.0), "{x:?}");
        assert_eq!(x[2], 0.0);
        assert!(x[1] > 5.0, "{x:?}");
    }

    #[test]
    fn alike_terms_and_empty_problems_have_a_solution() {
        assert_eq!(Sums::new(4).solve(1e-3), [0.0; MOST_TERMS]);
        let mut sums = Sums::new(3);
        for _ in 0..5 {
            sums.add(&row(&[1.0, 1.0, 2.0]), 10.0, 1.0);
        }
        let x = sums.solve(1e-3);
        let power = x[0] + x[1] + 2.0 * x[2];
        assert!((power - 10.0).abs() < 0.05, "{x:?}");
        assert!(x[0] > 9.0, "the constant has it: {x:?}");
    }
}
