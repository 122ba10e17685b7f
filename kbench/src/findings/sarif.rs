//! Findings as SARIF 2.1.0, which code hosts show beside the lines.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Judged, Place, Severity, Standing};

/// The tool's name in the file.
const TOOL: &str = "ptx-emulator";
/// Names and versions what a fingerprint is made of.
const FINGERPRINT: &str = "findingFingerprint/v1";

fn location(place: &Place, root: &str, text: Option<&str>) -> Value {
    let uri = place.below(root).unwrap_or(&place.path).replace(' ', "%20");
    let mut location = json!({
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": place.line.max(1)}}
    });
    if let Some(text) = text {
        location["message"] = json!({"text": text});
    }
    location
}

fn result(one: &Judged, root: &str) -> Value {
    let finding = &one.finding;
    let level = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    let sites: Vec<Value> = finding
        .sites
        .iter()
        .filter_map(|site| {
            Some(location(&site.place(root)?, root, Some(&format!("{}: {}", site.role, site.instruction))))
        })
        .collect();
    let mut result = json!({
        "ruleId": finding.kind,
        "level": level,
        "message": {"text": format!("{} in {}. {}", finding.message, finding.kernel, finding.hint)},
        "locations": finding.place(root).iter().map(|place| location(place, root, None)).collect::<Vec<_>>(),
        "relatedLocations": sites,
        "occurrenceCount": finding.hits.max(1),
        "partialFingerprints": {FINGERPRINT: finding.fingerprint()},
        "baselineState": if one.standing == Standing::Known { "unchanged" } else { "new" },
    });
    if let Standing::Suppressed(reason) = &one.standing {
        result["suppressions"] = json!([{"kind": "external", "justification": reason}]);
    }
    result
}

/// The whole file.
pub fn sarif(judged: &[Judged], root: &str) -> Value {
    let hints: BTreeMap<&str, &str> =
        judged.iter().map(|one| (one.finding.kind.as_str(), one.finding.hint.as_str())).collect();
    let rules: Vec<Value> = hints
        .iter()
        .map(|(kind, hint)| json!({"id": kind, "shortDescription": {"text": kind.replace('-', " ")}, "help": {"text": hint}}))
        .collect();
    let results: Vec<Value> = judged.iter().map(|one| result(one, root)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": TOOL, "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": results,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::race;
    use crate::findings::{Baseline, Policy, judge};

    #[test]
    fn a_result_has_its_line_both_accesses_and_what_it_counts_for() {
        let new = judge(&[race()], &Policy::default(), &Baseline::default());
        let file = sarif(&new, "/src/app");
        let result = &file["runs"][0]["results"][0];
        assert_eq!(result["level"], "error");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!((&place["artifactLocation"]["uri"], &place["region"]["startLine"]), (&json!("sum.cu"), &json!(14)));
        assert_eq!(result["relatedLocations"].as_array().map(Vec::len), Some(2));
        assert_eq!((&result["baselineState"], result.get("suppressions")), (&json!("new"), None));
        assert_eq!(file["runs"][0]["tool"]["driver"]["rules"][0]["id"], result["ruleId"]);
        let known = judge(&[race()], &Policy::default(), &Baseline::of(&new));
        assert_eq!(sarif(&known, "/src/app")["runs"][0]["results"][0]["baselineState"], "unchanged");
        let policy = Policy::parse("[[suppress]]\nreason = \"why\"\nkernel = \"sum\"\n").unwrap();
        let hidden = sarif(&judge(&[race()], &policy, &Baseline::default()), "/src/app");
        assert_eq!(hidden["runs"][0]["results"][0]["suppressions"][0]["justification"], "why");
    }
}
