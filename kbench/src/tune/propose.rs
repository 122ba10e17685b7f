//! What an external proposer is told and what it answers: one JSON line each way for every generation. What it wants
//! tried is examined like anything that comes from outside. Leaves to others: the process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::insight::Effect;
use super::profiled::ProfileInsight;
use super::record::{Evaluation, Plan, Proposal};
use super::search::Search;
use super::space::{Space, Toggles};

/// What is searched for, in words and data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task<'a> {
    /// What to do.
    pub goal: String,
    /// The plan of the search, with the dimensions and their values.
    pub plan: &'a Plan,
}

/// A line to the proposer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request<'a> {
    /// What is searched for.
    pub task: Task<'a>,
    /// How many configurations are wanted.
    pub want: usize,
    /// The fastest so far, fastest first.
    pub elites: Vec<&'a Evaluation>,
    /// What every value of every toggle seems to do.
    pub insights: Vec<Effect>,
    /// What the profiler says of elites, by name, where they were profiled.
    pub profiles: &'a BTreeMap<String, ProfileInsight>,
    /// Everything that was evaluated, rejections included.
    pub evaluated: Vec<&'a Evaluation>,
}

/// The proposer's line: configurations, each with a value for every dimension.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    /// The configurations.
    pub candidates: Vec<Toggles>,
}

impl<'a> Request<'a> {
    /// The request for the next generation of a search.
    pub fn of(plan: &'a Plan, search: &'a Search, profiles: &'a BTreeMap<String, ProfileInsight>) -> Request<'a> {
        let (elites, insights) = search.known_elites();
        let goal = format!(
            "find toggles with the least kernel time on `{}` over that of `{}`; answer with one line \
             {{\"candidates\": [{{toggle: value, ...}}, ...]}} that names every dimension",
            plan.shape, plan.control
        );
        let task = Task { goal, plan };
        Request { task, want: search.room(), elites, insights, profiles, evaluated: search.evaluations() }
    }
}

impl Candidates {
    /// What of a line can be evaluated, and what not, in one sentence each. A combination that the family refuses is
    /// evaluated, to its rejection: the record then says why it was not tried.
    pub fn examine(line: &str, space: &Space, search: &Search) -> (Vec<Proposal>, Vec<String>) {
        let candidates = match serde_json::from_str::<Candidates>(line) {
            Ok(Candidates { candidates }) => candidates,
            Err(error) => {
                let shown: String = line.chars().take(80).collect();
                return (Vec::new(), vec![format!("the proposer's answer `{shown}` is none: {error}")]);
            }
        };
        let mut seen = search.seen();
        let (mut proposals, mut faults) = (Vec::new(), Vec::new());
        for toggles in candidates {
            let name = space.name(&toggles);
            match space.examine(&toggles) {
                Err(why) => faults.push(format!("a candidate of the proposer is outside the space: {why}")),
                Ok(_) if !seen.insert(name.clone()) => {
                    faults.push(format!("the proposer wants `{name}` again, which was tried"));
                }
                Ok(_) => proposals.push(Proposal { name, toggles, origin: "proposer".to_owned() }),
            }
        }
        (proposals, faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::properties::plan;
    use crate::tune::space::tests::space;

    #[test]
    fn what_comes_from_outside_is_examined() {
        let space = space();
        let plan = plan(&space, 1, 32);
        let mut search = Search::new(&plan, &space);
        search.begin(search.propose(Vec::new()));
        let tried = search.seen().into_iter().next().unwrap();
        let good = space.unseen(&search.seen())[0].clone();
        let mut refused = good.clone();
        refused.extend([("loader".to_owned(), 2), ("warps".to_owned(), 2)]);
        let again = space.valid().iter().find(|t| space.name(t) == tried).unwrap().clone();
        let mut outside = good.clone();
        outside.insert("stages".to_owned(), 9);
        let line = serde_json::json!({"candidates": [good, refused, again, outside]}).to_string();
        let (proposals, faults) = Candidates::examine(&line, &space, &search);
        let toggles: Vec<&Toggles> = proposals.iter().map(|p| &p.toggles).collect();
        assert_eq!(toggles, [&good, &refused], "a refused combination is evaluated, to its rejection");
        assert!(faults[0].contains("which was tried") && faults[1].contains("`stages` is 9"), "{faults:?}");
        for line in
            ["", "[]", "{\"candidates\": 3}", "{\"candidates\": [], \"more\": 1}", "{\"candidates\": [{\"a\": -1}]}"]
        {
            let (proposals, faults) = Candidates::examine(line, &space, &search);
            assert!(proposals.is_empty() && faults.len() == 1, "{line}: {faults:?}");
        }
    }

    #[test]
    fn a_request_names_task_elites_and_insights() {
        let space = space();
        let plan = plan(&space, 1, 32);
        let search = Search::new(&plan, &space);
        let profiles = Default::default();
        let text = serde_json::to_string(&Request::of(&plan, &search, &profiles)).unwrap();
        for part in ["\"goal\"", "\"dimensions\"", "\"want\":4", "\"elites\":[]", "\"insights\":[]", "\"profiles\":{}"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
