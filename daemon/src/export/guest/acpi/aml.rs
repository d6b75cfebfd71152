//! Bytes of the ACPI machine language, as far as `table` needs them (ACPI 6.5, chapter 20). Pure: each function returns
//! the bytes of one term.

/// The bytes of a term.
pub(super) type Term = Vec<u8>;

/// The constant 0, which is also the target of a result that is used at once.
pub(super) const ZERO: u8 = 0x00;
/// The constant 1.
pub(super) const ONE: u8 = 0x01;

/// An integer, in the shortest form.
pub(super) fn int(value: u32) -> Term {
    let bytes = value.to_le_bytes();
    match value {
        0 => vec![ZERO],
        1 => vec![ONE],
        2..=0xff => vec![0x0a, bytes[0]],
        0x100..=0xffff => vec![0x0b, bytes[0], bytes[1]],
        _ => [&[0x0c][..], &bytes].concat(),
    }
}

/// A string of ASCII characters.
pub(super) fn text(text: &str) -> Term {
    [&[0x0d], text.as_bytes(), &[0]].concat()
}

/// The name of an object: segments with a dot between them, from the root where it begins with a backslash.
pub(super) fn name(path: &str) -> Term {
    let (root, path) = path.strip_prefix('\\').map_or(("", path), |path| ("\\", path));
    let segments: Vec<String> = path.split('.').map(|segment| format!("{segment:_<4}")).collect();
    let count = match segments.len() {
        1 => Vec::new(),
        2 => vec![0x2e],
        more => vec![0x2f, u8::try_from(more).unwrap_or(u8::MAX)],
    };
    [root.as_bytes(), &count, segments.concat().as_bytes()].concat()
}

/// `Local0` to `Local7`.
pub(super) fn local(number: u8) -> Term {
    vec![0x60 + number]
}

/// `Arg0` to `Arg6`.
pub(super) fn arg(number: u8) -> Term {
    vec![0x68 + number]
}

/// Terms one after the other.
pub(super) fn all<const N: usize>(terms: [Term; N]) -> Term {
    terms.concat()
}

/// An operator of one or two bytes and what follows it.
pub(super) fn op<const N: usize>(operator: &[u8], operands: [Term; N]) -> Term {
    [operator, &operands.concat()].concat()
}

/// An operator whose contents follow with their length.
fn sized(operator: &[u8], contents: &[u8]) -> Term {
    let of = |bytes: usize| contents.len() + bytes;
    // The length counts its own bytes: one up to 63, else four bits and up to three bytes more.
    let length = match contents.len() {
        0..=0x3e => vec![of(1) as u8],
        0x3f..=0xffd => vec![0x40 | (of(2) & 0xf) as u8, (of(2) >> 4) as u8],
        _ => vec![0x80 | (of(3) & 0xf) as u8, (of(3) >> 4) as u8, (of(3) >> 12) as u8],
    };
    [operator, &length, contents].concat()
}

/// `External (path, DeviceObj)`, within an `If (Zero)`, as iasl writes it: earlier interpreters do not know the term.
pub(super) fn external_device(path: &str) -> Term {
    when(int(0), [op(&[0x15], [name(path), vec![6, 0]])])
}

/// `Scope (path) { … }`.
pub(super) fn scope<const N: usize>(path: &str, terms: [Term; N]) -> Term {
    sized(&[0x10], &all([name(path), all(terms)]))
}

/// `Device (path) { … }`.
pub(super) fn device<const N: usize>(path: &str, terms: [Term; N]) -> Term {
    sized(&[0x5b, 0x82], &all([name(path), all(terms)]))
}

/// `Name (path, value)`.
pub(super) fn named(path: &str, value: Term) -> Term {
    op(&[0x08], [name(path), value])
}

/// `Package () { … }`.
pub(super) fn package<const N: usize>(elements: [Term; N]) -> Term {
    sized(&[0x12], &all([vec![u8::try_from(N).unwrap_or(u8::MAX)], all(elements)]))
}

/// `Method (path, args, …) { … }`.
pub(super) fn method<const N: usize>(path: &str, args: u8, serialized: bool, terms: [Term; N]) -> Term {
    sized(&[0x14], &all([name(path), vec![args | u8::from(serialized) << 3], all(terms)]))
}

/// The address spaces of operation regions.
#[derive(Clone, Copy)]
pub(super) enum Space {
    /// `SystemMemory`.
    Memory = 0,
    /// `PCI_Config`.
    PciConfig = 2,
}

/// `OperationRegion (path, space, offset, length)`.
pub(super) fn region(path: &str, space: Space, offset: Term, length: Term) -> Term {
    op(&[0x5b, 0x80], [name(path), vec![space as u8], offset, length])
}

/// The access of a field: `WordAcc`, `DWordAcc`.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// Two bytes at a time.
    Word = 2,
    /// Four bytes at a time.
    DWord = 3,
}

/// `Field (region, access, NoLock, Preserve) { … }`: fields of so many bits, and gaps, which have no name.
pub(super) fn field(region: &str, access: Access, fields: &[(&str, u8)]) -> Term {
    let mut contents = all([name(region), vec![access as u8]]);
    for (of, bits) in fields {
        contents.extend(if of.is_empty() { vec![0] } else { name(of) });
        contents.extend(sized_bits(*bits));
    }
    sized(&[0x5b, 0x81], &contents)
}

/// A number of bits, in the form of a length.
fn sized_bits(bits: u8) -> Term {
    if bits < 0x40 { vec![bits] } else { vec![0x40 | bits & 0xf, bits >> 4] }
}

/// `If (condition) { … }`.
pub(super) fn when<const N: usize>(condition: Term, terms: [Term; N]) -> Term {
    sized(&[0xa0], &all([condition, all(terms)]))
}

/// `Else { … }`, after an `If`.
pub(super) fn otherwise<const N: usize>(terms: [Term; N]) -> Term {
    sized(&[0xa1], &all(terms))
}

/// `While (condition) { … }`.
pub(super) fn repeat<const N: usize>(condition: Term, terms: [Term; N]) -> Term {
    sized(&[0xa2], &all([condition, all(terms)]))
}

/// `target = value`.
pub(super) fn store(value: Term, target: Term) -> Term {
    op(&[0x70], [value, target])
}

/// `Return (value)`.
pub(super) fn give(value: Term) -> Term {
    op(&[0xa4], [value])
}

/// `a == b`.
pub(super) fn equal(a: Term, b: Term) -> Term {
    op(&[0x93], [a, b])
}

/// `a != b`.
pub(super) fn differs(a: Term, b: Term) -> Term {
    op(&[0x92, 0x93], [a, b])
}

/// `a > b`.
pub(super) fn above(a: Term, b: Term) -> Term {
    op(&[0x94], [a, b])
}

/// `a < b`.
pub(super) fn below(a: Term, b: Term) -> Term {
    op(&[0x95], [a, b])
}

/// `a <= b`.
pub(super) fn at_most(a: Term, b: Term) -> Term {
    op(&[0x92, 0x94], [a, b])
}

/// `a && b`.
pub(super) fn both(a: Term, b: Term) -> Term {
    op(&[0x90], [a, b])
}

/// `a || b`.
pub(super) fn either(a: Term, b: Term) -> Term {
    op(&[0x91], [a, b])
}

/// `target = a + b`; a target of [`ZERO`] keeps nothing.
pub(super) fn add(a: Term, b: Term, target: Term) -> Term {
    op(&[0x72], [a, b, target])
}

/// `a - b`.
pub(super) fn minus(a: Term, b: Term) -> Term {
    op(&[0x74], [a, b, vec![ZERO]])
}

/// `target = a * b`.
pub(super) fn times(a: Term, b: Term, target: Term) -> Term {
    op(&[0x77], [a, b, target])
}

/// `target = a / b`, without the remainder.
pub(super) fn divide(a: Term, b: Term, target: Term) -> Term {
    op(&[0x78], [a, b, vec![ZERO], target])
}

/// `a & b`.
pub(super) fn and(a: Term, b: Term) -> Term {
    op(&[0x7b], [a, b, vec![ZERO]])
}

/// `target = a | b`.
pub(super) fn or(a: Term, b: Term, target: Term) -> Term {
    op(&[0x7d], [a, b, target])
}

/// `a << b`.
pub(super) fn shift_left(a: Term, b: Term) -> Term {
    op(&[0x79], [a, b, vec![ZERO]])
}

/// `target++`.
pub(super) fn increment(target: Term) -> Term {
    op(&[0x75], [target])
}

/// `package [index]`, as a target.
pub(super) fn element(package: Term, index: u32) -> Term {
    op(&[0x88], [package, int(index), vec![ZERO]])
}

/// `Timer`: the time in 100 ns.
pub(super) fn timer() -> Term {
    vec![0x5b, 0x33]
}

/// A definition block with its header. `table` is its name by its maker.
pub(super) fn ssdt<const N: usize>(oem: &[u8; 6], table: &[u8; 8], terms: [Term; N]) -> Vec<u8> {
    let body = all(terms);
    let length = u32::try_from(36 + body.len()).unwrap_or(u32::MAX).to_le_bytes();
    // Revision 2: integers have 64 bits.
    let mut bytes =
        [&b"SSDT"[..], &length, &[2, 0], oem, table, &1u32.to_le_bytes(), b"JOUL", &1u32.to_le_bytes(), &body].concat();
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = sum.wrapping_neg();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_their_own_bytes() {
        let block = |length: usize| sized(&[0xa1], &vec![0xff; length]);
        assert_eq!(block(0x3e)[..2], [0xa1, 0x3f]);
        assert_eq!(block(0x3f)[..3], [0xa1, 0x41, 0x04]);
        assert_eq!(block(0xffd)[..3], [0xa1, 0x4f, 0xff]);
        assert_eq!(block(0xffe)[..4], [0xa1, 0x81, 0x00, 0x01]);
    }

    #[test]
    fn integers_and_names_have_their_shortest_form() {
        assert_eq!((int(1), int(0xff), int(0x100)), (vec![1], vec![0x0a, 0xff], vec![0x0b, 0, 1]));
        assert_eq!(int(0x1_0000), [0x0c, 0, 0, 1, 0]);
        assert_eq!(name("\\_SB"), b"\\_SB_");
        assert_eq!(name("A.B"), b"\x2eA___B___");
    }
}
