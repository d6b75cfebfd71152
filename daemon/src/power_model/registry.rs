//! The models that lie in folders: jouled's own and Kepler's weights, by name. A file that is not used has a reason,
//! and the next one goes on. Pure: the caller lists and reads the files.

use super::file;
use super::kepler::weights::{self, Weights};
use super::model::Model;

/// The most models that are used.
pub const MOST_MODELS: usize = 256;
/// The most files of each folder that are looked at.
pub const MOST_FILES: usize = 1024;
/// How many folders deep below each folder models may lie: Kepler's published ones are in four.
pub const DEEPEST: usize = 5;
/// The most bytes of a file.
pub const MOST_BYTES: usize =
    if file::MOST_BYTES > weights::MOST_BYTES { file::MOST_BYTES } else { weights::MOST_BYTES };

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A model of `joulectl model train`, or one that jouled learned.
    Own(Model),
    /// Kepler's exported weights.
    Kepler(Weights),
}

/// A file that is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name, which no other one has: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Its path, for people.
    pub file: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its signature.
    pub signature: Signature,
    /// What it holds.
    pub content: Content,
}

/// What is known of the signature of a file that is used: it is none, or it is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The content of the file with the signature.
    pub text: Option<String>,
    /// The file of the trusted key that made it; `None`: it is not signed, or no key is trusted.
    pub by: Option<String>,
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its signature.
    pub signature: Signature,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotUsed {
    /// It cannot be used. The operator should do something.
    Refused(String),
    /// It is no file of a model, or another one goes before it.
    Ignored(String),
}

impl NotUsed {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Ignored(why) => why,
        }
    }
}

/// The files in their order: those of the preferred folders first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// Paths, and what became of each.
    pub files: Vec<(String, Result<Entry, NotUsed>)>,
    used: usize,
}

impl Registry {
    /// The files that are used.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().filter_map(|(_, outcome)| outcome.as_ref().ok())
    }

    /// A path of which nothing is read.
    pub fn refuse(&mut self, path: String, why: String) {
        self.files.push((path, Err(NotUsed::Refused(why))));
    }

    /// Adds a file. `below`: its path in its folder. `read` reads it, and is not called where nothing in it could be
    /// used. Signatures are read with the files that they are of.
    pub fn add(&mut self, path: String, below: &str, read: impl FnOnce() -> Result<Read, String>) {
        if below.ends_with(".json.sig") {
            return;
        }
        let outcome = self.outcome(&path, below, read);
        self.used += usize::from(outcome.is_ok());
        self.files.push((path, outcome));
    }

    fn outcome(&self, path: &str, below: &str, read: impl FnOnce() -> Result<Read, String>) -> Result<Entry, NotUsed> {
        let file = below.rsplit('/').next().unwrap_or(below);
        match file.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "zip" | "pkl" | "pickle" => {
                return Err(NotUsed::Refused(
                    "it is an archive or a pickle of Python, which runs code when it is read, so it is never read; \
                     get the weights of the same model as JSON"
                        .to_owned(),
                ));
            }
            "json" if file == "node_type_index.json" => {
                return Err(NotUsed::Ignored("it is Kepler's list of types of machines, and no model".to_owned()));
            }
            "json" => {}
            _ => return Err(NotUsed::Ignored("its name does not end in .json, so it is no model".to_owned())),
        }
        if self.used == MOST_MODELS {
            return Err(NotUsed::Refused(format!("more than {MOST_MODELS} models: this one is not read")));
        }
        let Read { bytes, signature } = read().map_err(NotUsed::Refused)?;
        let (name, content) = content(&bytes, below).map_err(NotUsed::Refused)?;
        if let Some(first) = self.entries().find(|known| known.name == name) {
            let why = format!("{} has the same name, {name}, and goes before it", first.file);
            return Err(NotUsed::Ignored(why));
        }
        Ok(Entry { name, file: path.to_owned(), bytes, signature, content })
    }
}

/// Name and content of a file. `below`: its path in its folder.
///
/// # Errors
/// Why it is refused: names the field.
pub fn content(bytes: &[u8], below: &str) -> Result<(String, Content), String> {
    if weights::is_foreign(bytes) {
        let model = file::read(bytes).map_err(|error| error.to_string())?;
        return Ok((model.name.clone(), Content::Own(model)));
    }
    let weights = Weights::read(bytes, below)?;
    let name = below.strip_suffix(".json").unwrap_or(below).chars();
    let name = name.map(|one| if one.is_ascii_alphanumeric() || "._-".contains(one) { one } else { '_' }).collect();
    Ok((name, Content::Kepler(weights)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power_model::kepler::own::tests::model;

    const KEPLER: &str = r#"{"package":{"All_Weights":{"Bias_Weight":9,"Categorical_Variables":{},"Numerical_Variables":{"bpf_cpu_time_ms":{"scale":1000,"weight":5}}}}}"#;

    #[test]
    fn each_file_has_a_name_or_a_reason() {
        let mut registry = Registry::default();
        let own = file::write(&model("lab", 8));
        let mut add = |below: &str, bytes: &str| {
            let bytes = bytes.as_bytes().to_vec();
            registry.add(format!("/m/{below}"), below, || Ok(Read { bytes, signature: Signature::default() }));
            match &registry.files.last().unwrap().1 {
                Ok(entry) => format!("used as {}", entry.name),
                Err(NotUsed::Refused(why)) => format!("refused: {why}"),
                Err(NotUsed::Ignored(why)) => format!("ignored: {why}"),
            }
        };
        assert_eq!(add("first.json", &own), "used as lab");
        assert_eq!(add("second.json", &own), "ignored: /m/first.json has the same name, lab, and goes before it");
        assert_eq!(add("rapl/AbsPower/a b.json", KEPLER), "used as rapl_AbsPower_a_b");
        assert!(add("c.json", KEPLER).starts_with("refused: its path does not say"));
        assert!(add("d.json", &own[..200]).starts_with("refused: "));
        assert!(add("e.json", &own.replace("\"version\": 1", "\"version\": 7")).contains("field version: it is 7"));
        assert!(add("f.json", &own.replace("jouled power model", "other")).contains("field format"));
        assert!(add("README.md", "text").starts_with("ignored: its name"));
        assert!(add("README.md.sig", "text").starts_with("ignored: its name"));
        assert!(add("node_type_index.json", "{}").starts_with("ignored: it is Kepler's list"));
        for archive in ["g.zip", "h.pkl", "i.pickle"] {
            assert!(add(archive, "").contains("never read"), "{archive}");
        }
        for number in 2..MOST_MODELS {
            let named = own.replace("\"lab\"", &format!("\"lab{number}\""));
            assert_eq!(add(&format!("lab{number}.json"), &named), format!("used as lab{number}"));
        }
        assert_eq!(
            add("z.json", &own.replace("\"lab\"", "\"z\"")),
            "refused: more than 256 models: this one is not read"
        );
        assert_eq!(registry.entries().count(), MOST_MODELS);
    }
}
