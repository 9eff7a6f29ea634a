//! Which agents used which credential. Agents lie in different shards; this lies in the credential's own.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, StringArray};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::snapshot::{Table, damaged, one_table, text};
use crate::event::{Event, Millis, Source};

/// Most credentials that are remembered in a shard; the one that was used longest ago makes room.
const MOST_CREDENTIALS: usize = 16_384;
/// Most agents of one credential that are remembered. Whoever comes then is one of very many, who were reported.
const MOST_USERS: usize = 8;
const DAY: Millis = 24 * 3_600_000;

/// An agent that used a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) agent: String,
    /// Whether only the agent says so.
    pub(crate) claimed: bool,
    /// The event that first said so.
    pub(crate) event: String,
    pub(crate) source: Source,
    pub(crate) at: Millis,
}

/// The users of one credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Users {
    /// When it was used last.
    last: Millis,
    users: Vec<User>,
}

/// All of them, by the credential's id.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Credentials {
    users: BTreeMap<String, Users>,
}

impl Credentials {
    /// Whether it is known, as surely as this event says it, that an agent uses a credential, and used it within a day.
    pub(super) fn knows(&self, agent: &str, event: &Event) -> bool {
        let claimed = !event.source.is_audit();
        self.users.get(&event.credential.id).is_some_and(|Users { last, users }| {
            let is_known = users.iter().any(|user| user.agent == agent && (claimed || !user.claimed));
            is_known && event.at < last.saturating_add(DAY)
        })
    }

    /// Takes in that an agent used a credential. Returns who else did, where this says something new.
    pub(super) fn take(&mut self, agent: &str, event: &Event) -> Vec<User> {
        let id = &event.credential.id;
        if !self.users.contains_key(id) {
            self.make_room();
        }
        let Users { last, users } = self.users.entry(id.clone()).or_default();
        *last = event.at.max(*last);
        let claimed = !event.source.is_audit();
        let known = users.iter().position(|user| user.agent == agent);
        if known.and_then(|at| users.get(at)).is_some_and(|user| claimed || !user.claimed) {
            return Vec::new();
        }
        // What the audit log says takes the place of the agent's own word.
        known.map(|at| users.remove(at));
        let others = users.clone();
        if users.len() < MOST_USERS {
            let (event, source, at) = (event.id.clone(), event.source, event.at);
            users.push(User { agent: agent.to_owned(), claimed, event, source, at });
            return others;
        }
        Vec::new()
    }

    /// How many credentials are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    fn make_room(&mut self) {
        if self.users.len() < MOST_CREDENTIALS {
            return;
        }
        let oldest = self.users.iter().min_by_key(|(_, users)| users.last).map(|(id, _)| id.clone());
        oldest.map(|id| self.users.remove(&id));
    }

    /// A row a credential: its id, and its users as JSON.
    pub(super) fn table(&self) -> Result<Table, ArrowError> {
        let json = |users| serde_json::to_string(users).map_err(|error| ArrowError::JsonError(error.to_string()));
        let users: Vec<String> = self.users.values().map(json).collect::<Result<_, _>>()?;
        Ok(Table::new("credentials")
            .with("credential", StringArray::from_iter_values(self.users.keys()))
            .with("users", StringArray::from(users)))
    }

    /// Puts back what was remembered.
    pub(super) fn restore(&mut self, batches: &[RecordBatch]) -> Result<(), RestoreError> {
        let batch = one_table(batches, "credentials")?;
        let (ids, texts) = (text(batch, "credential")?, text(batch, "users")?);
        for row in 0..batch.num_rows() {
            let users = serde_json::from_str(texts.value(row)).map_err(|_| damaged("users of a credential"))?;
            self.users.insert(ids.value(row).to_owned(), users);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::event::Credential;

    fn used(credential: &str, at: Millis, claimed: bool) -> Event {
        let credential = Credential { id: credential.to_owned(), claimed, ..Credential::default() };
        let source = if claimed { Source::AgentAction } else { Source::Cloudtrail };
        Event { source, credential, at, ..Event::default() }
    }

    fn names(users: &[User]) -> Vec<&str> {
        users.iter().map(|user| user.agent.as_str()).collect()
    }

    #[test]
    fn others_are_told_once_and_again_when_the_audit_log_confirms_a_claim() {
        let mut credentials = Credentials::default();
        assert!(credentials.take("a", &used("k", 1, true)).is_empty());
        assert_eq!(names(&credentials.take("b", &used("k", 2, true))), ["a"]);
        assert!(credentials.take("b", &used("k", 3, true)).is_empty());
        assert_eq!(names(&credentials.take("b", &used("k", 4, false))), ["a"]);
        assert!(credentials.take("b", &used("k", 5, true)).is_empty(), "a claim says less");
        assert!(credentials.take("a", &used("other", 6, false)).is_empty());
        assert!(credentials.knows("b", &used("k", 7, true)) && credentials.knows("b", &used("k", 7, false)));
        assert!(!credentials.knows("a", &used("k", 7, false)), "a claim says less");
        assert!(!credentials.knows("b", &used("k", 7 + DAY, false)), "in use still");
    }

    #[test]
    fn users_and_credentials_are_bounded() {
        let mut credentials = Credentials::default();
        let others: Vec<usize> =
            (0..MOST_USERS + 3).map(|agent| credentials.take(&agent.to_string(), &used("k", 0, false)).len()).collect();
        assert_eq!(others, [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0]);
        for at in 1..=MOST_CREDENTIALS {
            credentials.take("a", &used(&at.to_string(), i64::try_from(at).unwrap(), false));
        }
        assert_eq!(credentials.len(), MOST_CREDENTIALS);
        assert!(credentials.take("z", &used("k", 99_999, false)).is_empty(), "the oldest made room");
        assert_eq!(credentials.take("z", &used("5", 99_999, false)).len(), 1);
    }
}
