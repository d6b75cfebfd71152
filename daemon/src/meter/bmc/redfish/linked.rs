//! The chassis of this machine on a BMC that nobody configured: its systems and chassis are read, and what cannot be
//! read is left out where that leaves no doubt. Which of them are this machine's is decided in `chassis`.

use super::chassis::{self, Chassis, System, last_segment};
use super::discover::{FoundChassis, Search};
use super::{BmcError, ErrorKind, cut};

/// Most chassis around one another.
const DEPTH: usize = 8;
/// Most chassis of this machine whose power is looked for.
const CANDIDATES: usize = 16;

impl Search<'_> {
    /// The chassis of this machine that gives its power, and for the operator, why it is this machine's.
    pub(super) async fn linked_chassis(&mut self) -> Result<(FoundChassis, String), BmcError> {
        let mut unread = Vec::new();
        let systems = self.systems(&mut unread).await?;
        let system = chassis::system(&systems, self.uuid.as_ref());
        // A system that cannot be read may be this machine.
        let certain = matches!(system, Ok(Some((_, chassis::BY_UUID))));
        let system = match (system, unread.first()) {
            (system, None) => system.map_err(BmcError::unusable)?,
            (Ok(system), Some(_)) if certain => system,
            (Err(why), Some(error)) => {
                return Err(BmcError { kind: error.kind, why: format!("{why}; not read: {}", error.why) });
            }
            (Ok(_), Some(error)) => return Err(error.clone()),
        };
        self.left_out.extend(unread);
        let all = self.all_chassis(system.map(|(system, _)| system)).await?;
        let candidates = chassis::outermost(&all, system.map(|(system, _)| system)).map_err(BmcError::unusable)?;
        let why = system.map_or("the only chassis of the BMC, which has no system", |(_, why)| why);
        let (mut found, mut without) = (Vec::new(), Vec::new());
        for one in candidates.iter().take(CANDIDATES) {
            match self.best_location(&one.uri).await {
                Ok(location) => found.push(location),
                Err(error) if error.is_of_one_resource() => without.push(error),
                Err(error) => return Err(error),
            }
        }
        // A chassis whose power the BMC refuses may have it.
        let refused = without.iter().any(|error| matches!(error.kind, ErrorKind::Refused(_)));
        match found.len() {
            0 => {
                let whys: Vec<&str> = without.iter().map(|error| error.why.as_str()).collect();
                Err(BmcError {
                    kind: without.first().map_or(ErrorKind::Absent, |error| error.kind),
                    why: whys.join("; "),
                })
            }
            1 if !refused && candidates.len() <= CANDIDATES => {
                self.left_out.append(&mut without);
                Ok((found.remove(0), why.to_owned()))
            }
            _ => Err(BmcError::unusable(chassis::several_are_ours(candidates.iter().map(|one| one.id.as_str())))),
        }
    }

    /// The systems that can be read. `unread` gets the reasons of those that exist and cannot.
    async fn systems(&mut self, unread: &mut Vec<BmcError>) -> Result<Vec<System>, BmcError> {
        let mut systems = Vec::new();
        for uri in self.collection("Systems", unread).await? {
            let system = match self.doc(&uri).await {
                Ok(doc) => System::read(&doc, &mut self.left_out),
                Err(error) => Err(error),
            };
            match system {
                Ok(system) => systems.push(system),
                Err(error) if error.kind == ErrorKind::Missing => self.left_out.push(error),
                Err(error) if error.is_of_one_resource() => unread.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(systems)
    }

    /// The chassis that can be read: the members of the collection, those that the system links to, and those around
    /// them.
    ///
    /// # Errors
    /// A chassis around this machine's exists and cannot be read: the power of the inner one may be a part of the
    /// machine's.
    async fn all_chassis(&mut self, system: Option<&System>) -> Result<Vec<Chassis>, BmcError> {
        let mut left_out = Vec::new();
        let mut uris = self.collection("Chassis", &mut left_out).await?;
        for linked in system.iter().flat_map(|system| &system.chassis) {
            if !uris.iter().any(|uri| chassis::same_uri(uri, linked)) {
                uris.push(linked.clone());
            }
        }
        let (mut all, mut unread): (Vec<Chassis>, Vec<(String, BmcError)>) = (Vec::new(), Vec::new());
        for _ in 0..DEPTH {
            for uri in std::mem::take(&mut uris) {
                match self.doc(&uri).await {
                    Ok(doc) => all.push(Chassis::read(&doc, &mut left_out)),
                    Err(error) if error.is_of_one_resource() => unread.push((uri, error)),
                    Err(error) => return Err(error),
                }
            }
            let known = |uri: &String| {
                all.iter().any(|one| chassis::same_uri(&one.uri, uri))
                    || unread.iter().any(|(one, _)| chassis::same_uri(one, uri))
            };
            uris = all.iter().filter_map(|one| one.contained_by.clone()).filter(|uri| !known(uri)).collect();
            uris.dedup();
            if uris.is_empty() {
                break;
            }
        }
        self.left_out.append(&mut left_out);
        for (uri, error) in unread {
            let inside = |one: &&Chassis| one.contained_by.as_ref().is_some_and(|outer| chassis::same_uri(outer, &uri));
            let ours = |one: &Chassis| {
                system.is_some_and(|system| {
                    one.systems.iter().any(|of| chassis::same_uri(of, &system.uri))
                        || system.chassis.iter().any(|linked| chassis::same_uri(linked, &one.uri))
                })
            };
            if error.kind != ErrorKind::Missing
                && let Some(inner) = all.iter().filter(inside).find(|one| ours(one))
            {
                let why = format!("{} is inside a chassis that cannot be read: {}", cut(&inner.uri), error.why);
                return Err(BmcError { kind: error.kind, why });
            }
            self.left_out.push(error);
        }
        Ok(all)
    }

    /// An error of the search, with what to configure in its place.
    pub(super) async fn with_way_out(&mut self, error: BmcError) -> BmcError {
        // Without the right role no chassis can be read.
        if !error.is_of_one_resource() || error.kind == ErrorKind::Refused(403) {
            return error;
        }
        let uris = self.collection("Chassis", &mut Vec::new()).await.unwrap_or_default();
        let ids: Vec<String> = uris.iter().take(8).map(|uri| format!("\"{}\"", cut(last_segment(uri)))).collect();
        let lead = if error.why.contains("set chassis") { "" } else { "; or set chassis to this machine's" };
        let of = if ids.len() > 1 { format!(", of {}", ids.join(", ")) } else { String::new() };
        let example = ids.first().map_or("\"/redfish/v1/Chassis/ID\"", |id| id.as_str());
        BmcError { kind: error.kind, why: format!("{}{lead}: chassis = [{example}]{of}", error.why) }
    }
}
