//! Models that a running jouled learned from its meters: it says them in its snapshot.

use super::super::client::Client;
use super::super::{Error, text};
use super::files;
use crate::model::snapshot::{LearnedView, Snapshot};
use crate::power_model::file;
use crate::power_model::model::Model;
use std::path::Path;

/// Beginning of the names of learned models.
const LEARNED: &str = "learned-";

/// The model of a file, of a name in one of the usual folders or, where the name begins with `learned-` and no folder
/// has it, the one that the jouled behind `client` learned.
///
/// # Errors
/// Where there is none, it cannot be read, or jouled cannot be reached.
pub async fn named(word: &Path, client: &Client) -> Result<Model, Error> {
    match files::named(word, &files::folders(&[])) {
        Ok((_, model)) => Ok(model),
        Err(_) if word.to_string_lossy().starts_with(LEARNED) && !word.to_string_lossy().ends_with(".json") => {
            of(&client.snapshot().await?, &word.to_string_lossy())
        }
        Err(error) => Err(error),
    }
}

/// The learned model of that name in a snapshot.
fn of(snapshot: &Snapshot, name: &str) -> Result<Model, Error> {
    let all = || snapshot.domains.iter().filter_map(|view| view.learned.as_ref());
    match all().find(|learned| learned.name == name) {
        Some(LearnedView { model: Some(written), .. }) => file::read(written.as_bytes())
            .map_err(|error| Error::Model(format!("the model {} of jouled: {error}", text::safe(name)))),
        Some(_) => Err(Error::Model(format!(
            "{}: too little is learned for a model, or it is of a GPU, of which only the error is shown",
            text::safe(name)
        ))),
        None => {
            let names: Vec<String> = all().map(|learned| text::safe(&learned.name)).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(Error::Model(format!("jouled has learned no model {}; there are: {names}", text::safe(name))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn a_learned_model_is_found_by_its_name_and_what_is_not_there_is_said() {
        let mut snapshot = fixture::snapshot();
        let learned = LearnedView {
            name: "learned-x".into(),
            taught: Default::default(),
            taught_at: None,
            error_ppm: None,
            bands: vec![],
            predicted: None,
            model: None,
        };
        let error = |snapshot: &Snapshot| of(snapshot, "learned-x").unwrap_err().to_string();
        assert_eq!(error(&snapshot), "jouled has learned no model learned-x; there are: none");
        snapshot.domains[0].learned = Some(learned.clone());
        assert!(error(&snapshot).starts_with("learned-x: too little is learned"));
        snapshot.domains[0].learned = Some(LearnedView { model: Some("{}".into()), ..learned });
        assert!(error(&snapshot).starts_with("the model learned-x of jouled: field format"));
    }
}
