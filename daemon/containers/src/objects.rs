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
    /// What is before the array, where it is in an object.
    head: Option<Head>,
}

/// What is read of an object until its array begins.
#[derive(Debug, Default)]
struct Head {
    read: usize,
    /// Braces and brackets that are open.
    depth: usize,
    in_text: bool,
    is_escaped: bool,
    /// The text that was read last, without its quotes.
    text: Vec<u8>,
    /// The value of `items` is next.
    is_next: bool,
}

/// Longest head of an object, in bytes.
const HEAD_MAX: usize = 64 << 10;

impl Head {
    /// Takes a byte. Whether the array begins with it.
    fn add(&mut self, byte: u8) -> Result<bool, String> {
        self.read += 1;
        if self.read > HEAD_MAX {
            return Err("what it sends has no items".to_owned());
        }
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_text => self.is_escaped = true,
            b'"' => {
                self.in_text = !self.in_text;
                if self.in_text {
                    self.text.clear();
                }
            }
            _ if self.in_text => self.text.push(byte),
            b':' => self.is_next = self.depth == 1 && self.text == b"items",
            b'[' if self.is_next => return Ok(true),
            b'{' | b'[' => self.depth += 1,
            // `null`, of a list without any.
            b'}' if self.is_next && self.depth == 1 => return Ok(true),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if self.depth == 0 => return Err("what it sends is no list of objects".to_owned()),
            b',' => self.is_next = false,
            _ => {}
        }
        Ok(false)
    }
}

impl Objects {
    /// The objects of the array `items` in an object.
    pub fn of_items() -> Self {
        Self { head: Some(Head::default()), ..Self::default() }
    }

    /// Takes the next bytes, and calls `each` for each object that ends in them.
    ///
    /// # Errors
    /// Where an object is longer than [`OBJECT_MAX`], or the bytes are no JSON.
    pub fn add(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), String> {
        for byte in bytes {
            if self.is_whole() {
                return Ok(());
            }
            if let Some(head) = &mut self.head {
                if head.add(*byte)? {
                    self.is_whole = *byte == b'}';
                    self.head = None;
                }
                continue;
            }
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
    fn objects_of_items_are_found_wherever_the_bytes_are_cut() {
        let items = |text: &str, step: usize| {
            let (mut objects, mut found) = (Objects::of_items(), Vec::new());
            for bytes in text.as_bytes().chunks(step) {
                objects.add(bytes, |object| found.push(String::from_utf8_lossy(object).into_owned()))?;
            }
            Ok::<_, String>((found, objects.is_whole()))
        };
        let text =
            r#"{"kind":"items","x\"":[{"items":[{}]}],"metadata":{"items":{}},"items": [{"a":1},{"b":[]}],"c":{}}"#;
        for step in 1..text.len() {
            let expected = vec![r#"{"a":1}"#.to_owned(), r#"{"b":[]}"#.to_owned()];
            assert_eq!(items(text, step), Ok((expected, true)), "{step}");
        }
        assert_eq!(items(r#"{"items":null}"#, 1), Ok((Vec::new(), true)));
        assert_eq!(items(r#"{"items":[{}"#, 1), Ok((vec!["{}".to_owned()], false)));
        assert_eq!(items(r#"{"kind":"PodList"}"#, 1), Ok((Vec::new(), false)));
        assert!(items("<html>", 1).unwrap_err().contains("no list"));
        assert!(items(&format!("{{\"a\":\"{}", "x".repeat(HEAD_MAX)), 4096).unwrap_err().contains("no items"));
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
        assert_eq!(objects("[{}],\"x\":{}}", 3), Ok((vec!["{}".to_owned()], true)), "what follows is not of the array");
        assert_eq!(objects("[{}", 1), Ok((vec!["{}".to_owned()], false)), "half an answer is not whole");
        assert!(objects("<html>", 9).is_err());
        let long = format!("[{{\"a\":\"{}", "x".repeat(OBJECT_MAX));
        assert!(objects(&long, 4096).unwrap_err().contains("more than"));
    }
}
