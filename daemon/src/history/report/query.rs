//! What a report is asked for, and the words for it.

use crate::model::entity::Kind;
use serde::{Deserialize, Serialize};

/// What a report is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Begin in seconds since 1970.
    pub from: i64,
    /// End in seconds since 1970.
    pub until: i64,
    /// What its lines are.
    pub by: By,
    /// One set of lines for each of these; `None`: one for all.
    pub step: Option<ReportStep>,
    /// Most lines of a part; the others are added to the rest.
    pub limit: usize,
}

/// What the lines of a report are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum By {
    /// Entities of a kind.
    Kind(Kind),
    /// Namespaces of pods.
    Namespace,
    /// Zones of the node.
    Zone,
}

impl By {
    /// All words, for help and messages.
    pub fn words() -> Vec<&'static str> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Process);
        kinds.map(|kind| Self::Kind(kind).as_str()).chain([Self::Namespace.as_str(), Self::Zone.as_str()]).collect()
    }

    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.as_str(),
            Self::Namespace => "namespace",
            Self::Zone => "zone",
        }
    }

    /// The kind whose series are read; `None`: none.
    pub(super) const fn kind(self) -> Option<Kind> {
        match self {
            Self::Kind(kind) => Some(kind),
            Self::Namespace => Some(Kind::Pod),
            Self::Zone => None,
        }
    }

    /// Whether entities of it contain each other, so that their energy does not add up to the node's.
    pub(super) const fn overlaps(self) -> bool {
        matches!(self, Self::Kind(Kind::Slice))
    }
}

impl std::str::FromStr for By {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Process).map(Self::Kind);
        let known = kinds.chain([Self::Namespace, Self::Zone]).find(|by| by.as_str() == word);
        known.ok_or_else(|| format!("{word:?} is none of {}", Self::words().join(", ")))
    }
}

impl TryFrom<String> for By {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

impl From<By> for String {
    fn from(by: By) -> Self {
        by.as_str().into()
    }
}

/// The length of the parts of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ReportStep {
    /// Hours of the local clock.
    Hour,
    /// Days of the local clock.
    Day,
    /// Months of the local clock.
    Month,
}

impl ReportStep {
    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}
