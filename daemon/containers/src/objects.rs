//! Finds the JSON objects in a stream of bytes: the elements of an array, or objects one after the other. Holds one
//! object at a time, so that an answer of any length needs no memory.

/// Longest object that is taken, in bytes. A container with hundreds of labels has some kilobytes.
pub const OBJECT_MAX: usize = 1 << 20;

/// The objects of one stream, as far as it has come.
#[derive(Debug, Default)]
pub struct Objects {
    object: Vec<u8>,
    /// Braces that are open.
    depth: usize,
    in_text: bool,
    /// The last byte was a backslash in a text.
    is_escaped: bool,
    /// The array is closed: a `]` outside of objects.
    is_whole: bool,
}

impl Objects {
    /// Takes the next bytes, and calls `each` for each object that ends in them.
    ///
    /// # Errors
    /// Where an object is longer than [`OBJECT_MAX`], or the bytes are no JSON.
    pub fn add(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), String> {
        for byte in bytes {
            if self.depth == 0 {
                match byte {
                    b'{' => self.depth = 1,
                    b'[' | b',' | b' ' | b'\t' | b'\r' | b'\n' => continue,
                    b']' => {
                        self.is_whole = true;
                        continue;
                    }
                    // An empty list of some runtimes.
                    b'n' | b'u' | b'l' => continue,
                    _ => return Err("what it sends is no list of objects".to_owned()),
                }
                self.object.clear();
                self.object.push(*byte);
                continue;
            }
            if self.object.len() >= OBJECT_MAX {
                return Err(format!("it sends an object of more than {OBJECT_MAX} bytes"));
            }
            self.object.push(*byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_text => self.is_escaped = true,
                b'"' => self.in_text = !self.in_text,
                b'{' if !self.in_text => self.depth += 1,
                b'}' if !self.in_text => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        each(&self.object);
                        self.object.shrink_to(64 << 10);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the array has come to its end.
    pub fn is_whole(&self) -> bool {
        self.is_whole && self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str, step: usize) -> Result<(Vec<String>, bool), String> {
        let (mut objects, mut found) = (Objects::default(), Vec::new());
        for bytes in text.as_bytes().chunks(step) {
            objects.add(bytes, |object| found.push(String::from_utf8_lossy(object).into_owned()))?;
        }
        Ok((found, objects.is_whole()))
    }

    #[test]
    fn objects_are_found_wherever_the_bytes_are_cut() {
        let text = r#"[{"a":{"b":"}\"{"}}, {"c":[{"d":1}]}]"#;
        for step in 1..text.len() {
            let expected = vec![r#"{"a":{"b":"}\"{"}}"#.to_owned(), r#"{"c":[{"d":1}]}"#.to_owned()];
            assert_eq!(objects(text, step), Ok((expected, true)));
        }
        assert_eq!(objects("{}\n{}\n", 1), Ok((vec!["{}".to_owned(), "{}".to_owned()], false)));
        assert_eq!(objects("[]", 1), Ok((Vec::new(), true)));
        assert_eq!(objects("[{}", 1), Ok((vec!["{}".to_owned()], false)), "half an answer is not whole");
        assert!(objects("<html>", 9).is_err());
        let long = format!("[{{\"a\":\"{}", "x".repeat(OBJECT_MAX));
        assert!(objects(&long, 4096).unwrap_err().contains("more than"));
    }
}
