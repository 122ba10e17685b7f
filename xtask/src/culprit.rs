//! Who is to blame when the device fails, or the runner is lost, while variants are timed in one process. Who was on the
//! device when it showed need not be who broke it, so each is launched in a process of its own first. Pure: whoever launches
//! is handed in. Leaves to others: launching, and timing those who are left.

use anyhow::Result;
use kbench::subject::Subject;

/// What showed, and in whose turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Shape.
    pub shape: String,
    /// Who was on the device, or about to be.
    pub subject: Subject,
    /// The driver's words, or how the runner ended.
    pub why: String,
}

/// Who is left out when the rest is timed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// These variants, each for this reason.
    Variants(Vec<(String, String)>),
    /// This peer.
    Peer(String),
    /// The control was on the device, and nobody fails alone: that says nothing of anybody.
    Control,
    /// Nobody of the job was on the device: it is no kernel's fault.
    Nobody,
}

/// Decides. `alone` launches a variant in a process of its own and answers why it fails there, if it does.
pub fn blame(
    shown: &Shown,
    control: &str,
    variants: &[String],
    peers: &[String],
    alone: &mut dyn FnMut(&str) -> Result<Option<String>>,
) -> Result<Blame> {
    let who = &shown.subject.who;
    if shown.subject.is_peer() {
        let name = who.split('/').next().unwrap_or(who);
        let known = peers.iter().find(|peer| *peer == name);
        return Ok(known.map_or(Blame::Nobody, |peer| Blame::Peer(peer.clone())));
    }
    if !variants.contains(who) {
        return Ok(Blame::Nobody);
    }
    let mut failing = Vec::new();
    for variant in variants {
        if let Some(why) = alone(variant)? {
            let why = if variant == who { shown.why.clone() } else { format!("launched alone: {why}") };
            failing.push((variant.clone(), why));
        }
    }
    Ok(match failing.is_empty() {
        false => Blame::Variants(failing),
        true if who == control => Blame::Control,
        true => Blame::Variants(vec![(who.clone(), format!("{}; launched alone it does not fail", shown.why))]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict where `subject` was on the device and `failing` fail alone.
    fn blamed(subject: &str, failing: &[&str]) -> (Blame, Vec<String>) {
        let shown = Shown { shape: "small".into(), subject: Subject::plain(subject), why: "illegal address".into() };
        let variants = ["old", "a", "b", "c"].map(str::to_owned);
        let mut asked = Vec::new();
        let mut alone = |variant: &str| {
            asked.push(variant.to_owned());
            Ok(failing.contains(&variant).then(|| "it faults".to_owned()))
        };
        let blame = blame(&shown, "old", &variants, &["torch".to_owned()], &mut alone).unwrap();
        (blame, asked)
    }

    fn named(blame: Blame) -> Vec<String> {
        let Blame::Variants(named) = blame else { panic!("{blame:?}") };
        named.into_iter().map(|(variant, _)| variant).collect()
    }

    #[test]
    fn who_fails_alone_is_to_blame_whoever_was_on_the_device() {
        assert_eq!(named(blamed("a", &["a"]).0), ["a"]);
        assert_eq!(named(blamed("a", &["b"]).0), ["b"]);
        assert_eq!(named(blamed("a", &["a", "c"]).0), ["a", "c"]);
        assert_eq!(named(blamed("old", &["c"]).0), ["c"]);
        assert_eq!(named(blamed("old", &["old"]).0), ["old"]);
        assert_eq!(blamed("a", &["b"]).1, ["old", "a", "b", "c"], "each is launched");
    }

    #[test]
    fn where_nobody_fails_alone_it_is_who_was_there_but_never_the_control() {
        let (blame, _) = blamed("b", &[]);
        assert!(matches!(&blame, Blame::Variants(named) if named[0].1.ends_with("launched alone it does not fail")));
        assert_eq!(named(blame), ["b"]);
        assert_eq!(blamed("old", &[]).0, Blame::Control);
    }

    #[test]
    fn a_peer_is_its_own_fault_and_strangers_are_nobodys() {
        let (blame, asked) = blamed("torch/flash", &["a"]);
        assert_eq!((blame, asked.len()), (Blame::Peer("torch".into()), 0));
        assert_eq!(blamed("fa3/fp8", &[]).0, Blame::Nobody);
        assert_eq!(blamed("never-heard-of", &["a"]).0, Blame::Nobody);
    }
}
