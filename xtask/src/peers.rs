//! Which peers a suite measures, and how each is started. Leaves to others: the conversation with them (the runner's) and
//! what they are (`kbench/peers/`).

use kbench::job::PeerCommand;
use kbench::suite::Suite;

use crate::layout::Layout;

/// The name of every peer that there is, and its script.
const SCRIPTS: [(&str, &str); 3] = [("torch", "torch_sdpa.py"), ("cudnn", "cudnn_fp8.py"), ("fa3", "fa3_fp8.py")];

/// Which peers are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerChoice {
    /// Those that are installed; those that are not are deferred.
    Auto,
    /// None.
    None,
    /// PyTorch.
    Torch,
}

/// The commands of PyTorch and of the peers that the suite wants besides.
pub fn commands(layout: &Layout, suite: &Suite) -> Vec<PeerCommand> {
    let also = suite.peers.as_ref().map(|limit| limit.also.as_slice()).unwrap_or_default();
    let wanted = |name: &str| name == "torch" || also.iter().any(|other| other == name);
    let command = |(name, script): &(&str, &str)| {
        let script = layout.peers().join(script).display().to_string();
        PeerCommand { name: (*name).to_owned(), argv: vec!["python3".to_owned(), "-u".to_owned(), script] }
    };
    SCRIPTS.iter().filter(|(name, _)| wanted(name)).map(command).collect()
}

/// A peer that a suite names and that there is not.
pub fn unknown(suite: &Suite) -> Option<&str> {
    let also = suite.peers.as_ref().map(|limit| limit.also.as_slice()).unwrap_or_default();
    also.iter().map(String::as_str).find(|name| SCRIPTS.iter().all(|(known, _)| known != name))
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
        let names = |suite: &Suite| commands(&layout, suite).into_iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(names(&suite("stage5")), ["torch"]);
        let mut flagship = suite("flagship");
        assert_eq!(names(&flagship), ["torch", "cudnn", "fa3"]);
        assert_eq!(unknown(&flagship), None);
        flagship.peers.as_mut().unwrap().also.push("triton".into());
        assert_eq!(unknown(&flagship), Some("triton"));
    }
}
