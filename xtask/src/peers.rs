//! Which peers a suite measures, and how each is started. Leaves to others: the conversation with them (the runner's) and
//! what they are (`kbench/peers/`).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use kbench::deferral::Deferral;
use kbench::job::PeerCommand;
use kbench::suite::Suite;

use crate::layout::Layout;

/// The name of every peer that there is, and its script.
const SCRIPTS: [(&str, &str); 3] = [("torch", "torch_sdpa.py"), ("cudnn", "cudnn_fp8.py"), ("fa3", "fa3_fp8.py")];

/// Which peers are measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerChoice {
    /// PyTorch and what the suite names besides; those that are not installed are deferred.
    #[default]
    Auto,
    /// These and no others, whatever the suite names.
    Only(BTreeSet<&'static str>),
}

impl PeerChoice {
    pub fn none() -> PeerChoice {
        PeerChoice::Only(BTreeSet::new())
    }
}

impl FromStr for PeerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerChoice, String> {
        let named = |name: &str| {
            let known = SCRIPTS.iter().map(|(known, _)| *known).find(|known| *known == name.trim());
            known.ok_or_else(|| format!("unknown peer `{name}`: use auto, none, or some of {}", names().join(",")))
        };
        match text {
            "auto" => Ok(PeerChoice::Auto),
            "none" => Ok(PeerChoice::none()),
            list => list.split(',').map(named).collect::<Result<_, _>>().map(PeerChoice::Only),
        }
    }
}

fn names() -> Vec<&'static str> {
    SCRIPTS.iter().map(|(name, _)| *name).collect()
}

/// What the suite measures where nobody chooses: PyTorch, and what its gates name besides.
fn of_suite(suite: &Suite) -> BTreeSet<&str> {
    let also = suite.peers.iter().flat_map(|limit| &limit.also).map(String::as_str);
    ["torch"].into_iter().chain(also).collect()
}

/// The commands of the peers that are measured.
pub fn commands(layout: &Layout, suite: &Suite, choice: &PeerChoice) -> Vec<PeerCommand> {
    // Every peer that there is computes attention.
    if suite.declared().is_some() {
        return Vec::new();
    }
    let wanted: BTreeSet<&str> = match choice {
        PeerChoice::Auto => of_suite(suite),
        PeerChoice::Only(names) => names.iter().copied().collect(),
    };
    let command = |(name, script): &(&str, &str)| {
        let script = layout.peers().join(script).display().to_string();
        PeerCommand { name: (*name).to_owned(), argv: vec!["python3".to_owned(), "-u".to_owned(), script] }
    };
    SCRIPTS.iter().filter(|(name, _)| wanted.contains(name)).map(command).collect()
}

/// Peers that gates of the suite need and the choice leaves out, each with the remedy.
pub fn left_out(suite: &Suite, choice: &PeerChoice) -> BTreeMap<String, Deferral> {
    let PeerChoice::Only(chosen) = choice else { return BTreeMap::new() };
    let needed = if suite.peers.is_some() { of_suite(suite) } else { BTreeSet::new() };
    let missed = needed.into_iter().filter(|name| !chosen.contains(name));
    missed.map(|name| (name.to_owned(), Deferral::new("--peers leaves it out", "run with --peers auto"))).collect()
}

/// A peer that a suite names and that there is not.
pub fn unknown(suite: &Suite) -> Option<&str> {
    of_suite(suite).into_iter().find(|name| !names().contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_its_script_and_a_suite_gets_those_it_names() {
        let layout = Layout::find().unwrap();
        for (name, script) in SCRIPTS {
            assert!(layout.peers().join(script).is_file(), "{name}");
        }
        let suite = |name: &str| {
            let text = std::fs::read_to_string(layout.suites().join(format!("{name}.toml"))).unwrap();
            Suite::parse(&text).unwrap()
        };
        let chosen = |suite: &Suite, choice: &PeerChoice| {
            commands(&layout, suite, choice).into_iter().map(|c| c.name).collect::<Vec<_>>()
        };
        let names = |suite: &Suite| chosen(suite, &PeerChoice::Auto);
        assert_eq!(names(&suite("stage5")), ["torch"]);
        let mut flagship = suite("flagship");
        assert_eq!(names(&flagship), ["torch", "cudnn", "fa3"]);
        // Exactly what is named is measured; what a gate needed of the rest is missed by name.
        for (text, measured, missed) in [
            ("torch", vec!["torch"], vec!["cudnn", "fa3"]),
            ("fa3,torch", vec!["torch", "fa3"], vec!["cudnn"]),
            ("none", vec![], vec!["cudnn", "fa3", "torch"]),
            ("auto", vec!["torch", "cudnn", "fa3"], vec![]),
        ] {
            let choice: PeerChoice = text.parse().unwrap();
            assert_eq!(chosen(&flagship, &choice), measured, "{text}");
            assert_eq!(left_out(&flagship, &choice).into_keys().collect::<Vec<_>>(), missed, "{text}");
        }
        let fa3: PeerChoice = "fa3".parse().unwrap();
        assert_eq!(
            (chosen(&suite("stage5"), &fa3), left_out(&suite("stage5"), &fa3).len()),
            (vec!["fa3".to_owned()], 0)
        );
        assert!("torch,triton".parse::<PeerChoice>().unwrap_err().contains("`triton`: use auto, none"));
        assert_eq!(unknown(&flagship), None);
        flagship.peers.as_mut().unwrap().also.push("triton".into());
        assert_eq!(unknown(&flagship), Some("triton"));
    }
}
