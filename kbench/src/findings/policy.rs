//! What of the findings fails: severities that a project sets itself, findings that it suppresses with a reason, and a baseline
//! of those that were there before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Finding, Severity};

/// A project's own rules, from a TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Policy {
    /// The least severity that fails.
    pub fail_on: Severity,
    /// Severities of kinds that are other than the emulator's.
    pub severity: BTreeMap<String, Severity>,
    /// Findings that do not count.
    pub suppress: Vec<Suppression>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { fail_on: Severity::Error, severity: BTreeMap::new(), suppress: Vec::new() }
    }
}

/// Findings that do not count: all that is named must fit; `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// Why it does not count.
    pub reason: String,
    /// Kind of the finding.
    #[serde(default)]
    pub kind: Option<String>,
    /// The kernel.
    #[serde(default)]
    pub kernel: Option<String>,
    /// The file of one of its places, as a path or the end of one.
    #[serde(default)]
    pub file: Option<String>,
}

/// Why a policy or baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It does not have the right form.
    #[error("failed to read the policy: {0}")]
    Toml(#[from] toml::de::Error),
    /// A suppression that fits everything.
    #[error(
        "failed to read the policy: suppression {0} names neither kind, kernel nor file, and would hide everything"
    )]
    Everything(usize),
    /// A suppression nobody can answer for.
    #[error("failed to read the policy: suppression {0} has an empty reason")]
    NoReason(usize),
}

impl Policy {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let policy: Policy = toml::from_str(text)?;
        for (i, Suppression { reason, kind, kernel, file }) in policy.suppress.iter().enumerate() {
            if kind.is_none() && kernel.is_none() && file.is_none() {
                return Err(PolicyError::Everything(i + 1));
            }
            if reason.trim().is_empty() {
                return Err(PolicyError::NoReason(i + 1));
            }
        }
        Ok(policy)
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

impl Suppression {
    fn hides(&self, finding: &Finding) -> bool {
        let ends = |pattern: &str, path: &str| fits(pattern, path) || fits(&format!("*/{pattern}"), path);
        let in_file = |pattern: &str| {
            let paths = finding.sites.iter().flat_map(|site| site.paths.iter().chain(&site.source));
            let called = finding.at.iter().filter_map(|frame| frame.place.as_ref());
            paths.chain(called).filter_map(|text| text.rsplit_once(':')).any(|(path, _)| ends(pattern, path))
        };
        self.kind.as_deref().is_none_or(|pattern| fits(pattern, &finding.kind))
            && self.kernel.as_deref().is_none_or(|pattern| fits(pattern, &finding.kernel))
            && self.file.as_deref().is_none_or(in_file)
    }
}

/// Findings that were there before: how many of each fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// How often each fingerprint was found, as `Finding::fingerprint` writes it.
    pub findings: BTreeMap<String, u64>,
}

impl Baseline {
    /// That of everything that would count today.
    pub fn of(judged: &[Judged]) -> Baseline {
        let mut baseline = Baseline::default();
        for one in judged.iter().filter(|one| !matches!(one.standing, Standing::Suppressed(_))) {
            *baseline.findings.entry(one.finding.fingerprint()).or_default() += 1;
        }
        baseline
    }
}

/// What a finding counts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nobody has seen it before.
    New,
    /// It is in the baseline.
    Known,
    /// The policy hides it, for this reason.
    Suppressed(String),
}

/// A finding, and what it counts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// With the policy's severity.
    #[serde(flatten)]
    pub finding: Finding,
    /// New, known or suppressed.
    pub standing: Standing,
    /// Whether it fails.
    pub fails: bool,
}

/// Holds findings to a policy and a baseline.
pub fn judge(findings: &[Finding], policy: &Policy, baseline: &Baseline) -> Vec<Judged> {
    let mut left = baseline.findings.clone();
    let judged = |finding: &Finding| {
        let mut finding = finding.clone();
        if let Some(severity) = policy.severity.get(&finding.kind) {
            finding.severity = *severity;
        }
        let hidden = policy.suppress.iter().find(|suppression| suppression.hides(&finding));
        let standing = match (hidden, left.get_mut(&finding.fingerprint())) {
            (Some(suppression), _) => Standing::Suppressed(suppression.reason.clone()),
            (None, Some(count)) if *count > 0 => {
                *count -= 1;
                Standing::Known
            }
            _ => Standing::New,
        };
        let fails = standing == Standing::New && finding.severity >= policy.fail_on;
        Judged { finding, standing, fails }
    };
    findings.iter().map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::race;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text) in
            [("a", "a"), ("race-*", "race-write-write"), ("*sum*", "a::sum<1>"), ("a*b*c", "a-b-b-c")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("race-*", "trap"), ("a*b", "a-b-c"), ("*b*a", "ab"), ("ab*ba", "aba")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn one_suppressed_one_known_and_a_new_one() {
        let policy = "[[suppress]]\nreason = \"a demonstration\"\nkernel = \"demo*\"\nfile = \"app/sum.cu\"\n";
        let policy = Policy::parse(policy).unwrap();
        let demo = Finding { kernel: "demo1".into(), ..race() };
        let other = Finding { kernel: "other".into(), ..race() };
        let baseline = Baseline::of(&judge(&[race()], &policy, &Baseline::default()));
        let judged = judge(&[demo, race(), race(), other], &policy, &baseline);
        let standings: Vec<&Standing> = judged.iter().map(|one| &one.standing).collect();
        let hidden = Standing::Suppressed("a demonstration".into());
        assert_eq!(standings, [&hidden, &Standing::Known, &Standing::New, &Standing::New]);
        assert_eq!(judged.iter().map(|one| one.fails).collect::<Vec<_>>(), [false, false, true, true]);
    }

    #[test]
    fn severities_are_the_projects() {
        let policy = Policy::parse("fail-on = \"WARNING\"\n[severity]\nrace-read-after-write = \"INFO\"\n").unwrap();
        let trap = Finding { kind: "trap".into(), severity: Severity::Warning, ..race() };
        let judged = judge(&[race(), trap], &policy, &Baseline::default());
        assert_eq!(judged.iter().map(|one| one.fails).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_suppression_of_everything_or_without_a_reason_is_refused() {
        for wrong in
            ["reason = \"x\"", "reason = \" \"\nkind = \"trap\"", "kind = \"trap\"", "reason = \"x\"\nfiel = \"y\""]
        {
            assert!(Policy::parse(&format!("[[suppress]]\n{wrong}\n")).is_err(), "{wrong}");
        }
    }
}
