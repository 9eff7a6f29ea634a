//! A count of the agents, one shard after the other: whoever asks about an agent meanwhile waits for one shard at most.

use std::collections::BTreeMap;

use tautline_detectors::baselines::{Baselines, Heard};
use tautline_detectors::deviation::LearningState;
use tautline_detectors::event::Millis;
use tautline_detectors::rulebook::Learning;

/// What was counted of the shards so far.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Agents by what was heard of them: few different things of very many agents.
    pub(crate) heard: BTreeMap<Heard, usize>,
    /// Agents that are still learning, and those that are not.
    pub(crate) learning: i64,
    pub(crate) active: i64,
    /// Most that any shard remembers of unregistered principals.
    pub(crate) notices: usize,
    /// Agents under quarantine.
    pub(crate) quarantined: usize,
    /// When each exception was last of use.
    pub(crate) excused: BTreeMap<String, Millis>,
}

impl Census {
    /// Counts a shard too.
    pub(crate) fn add(&mut self, baselines: &Baselines, learning: &Learning) {
        for (_, profile) in baselines.iter() {
            *self.heard.entry(profile.heard).or_default() += 1;
            *(match learning.state(profile) {
                LearningState::Learning => &mut self.learning,
                LearningState::Active => &mut self.active,
            }) += 1;
        }
        self.notices = self.notices.max(baselines.notices());
        self.quarantined += baselines.quarantined().count();
        for (id, at) in baselines.excused() {
            match self.excused.get_mut(id) {
                Some(last) => *last = at.max(*last),
                None => drop(self.excused.insert(id.to_owned(), at)),
            }
        }
    }
}
