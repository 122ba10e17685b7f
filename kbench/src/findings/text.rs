//! Findings for a reader at a terminal.

use std::fmt::Write;

use super::{Finding, Frame, Judged, Refused, Severity, Site, Standing};

/// Where something is, below a folder without that.
fn place(found: Option<super::Place>, root: &str) -> String {
    found.map_or_else(String::new, |place| format!("{}:{}", place.below(root).unwrap_or(&place.path), place.line))
}

fn frame(frame: &Frame, root: &str) -> String {
    match frame.place.as_deref().and_then(super::Place::of) {
        Some(found) => format!("{} ({})", place(Some(found), root), frame.function),
        None => frame.function.clone(),
    }
}

fn site(site: &Site, root: &str) -> String {
    let thread = site.warp * 32 + site.lane;
    let at = match place(site.place(root), root) {
        at if at.is_empty() => format!("PTX line {}", site.ptx_line),
        at => at,
    };
    format!("{at}  {}: {} by thread {thread} (warp {}, lane {})", site.role, site.instruction, site.warp, site.lane)
}

fn finding(out: &mut String, one: &Judged, root: &str) {
    let Finding { message, kernel, block: [x, y, z], sites, at, notes, hint, hits, .. } = &one.finding;
    let known = match &one.standing {
        Standing::New => "",
        Standing::Known => " (known)",
        Standing::Suppressed(_) => " (suppressed)",
    };
    let _ = write!(out, "{}{known} {message}", one.finding.severity);
    if !sites.is_empty() {
        let _ = write!(out, ", in `{kernel}` block ({x},{y},{z})");
    }
    out.push('\n');
    for access in sites {
        let _ = writeln!(out, "  {}", site(access, root));
    }
    for note in notes {
        let _ = writeln!(out, "  {}", note.replace(&format!("{root}/"), ""));
    }
    if let Some(first) = at.first() {
        let _ = writeln!(out, "  {} at {}", if sites.is_empty() { "called" } else { "launched" }, frame(first, root));
    }
    let times = if *hits == 1 { String::new() } else { format!("; {hits} hits") };
    let _ = writeln!(out, "  {hint}{times}");
}

/// Everything that counts, the worst first, what was not looked at, and a line that adds it up.
pub fn text(judged: &[Judged], refused: &[Refused], root: &str) -> String {
    let mut out = String::new();
    let shown = judged.iter().filter(|one| one.standing == Standing::New);
    shown.clone().for_each(|one| finding(&mut out, one, root));
    for Refused { what, why, at } in refused {
        let at = at.first().map_or_else(String::new, |first| format!(", at {}", frame(first, root)));
        let _ = writeln!(out, "NOT EMULATED `{what}`: {why}{at}");
    }
    let count = |wanted: Severity| shown.clone().filter(|one| one.finding.severity == wanted).count();
    let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let hidden = judged.iter().filter(|one| matches!(one.standing, Standing::Suppressed(_))).count();
    let known = judged.len() - hidden - shown.clone().count();
    let _ = write!(out, "{}, {}", of(count(Severity::Error), "error"), of(count(Severity::Warning), "warning"));
    for (count, what) in [(count(Severity::Info), "for information"), (known, "known"), (hidden, "suppressed")] {
        if count > 0 {
            let _ = write!(out, ", {count} {what}");
        }
    }
    if !refused.is_empty() {
        let _ = write!(out, "; {} not emulated", refused.len());
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::race;
    use crate::findings::{Baseline, Policy, judge};

    #[test]
    fn both_lines_the_cause_and_what_to_do_are_there() {
        let judged = judge(&[race()], &Policy::default(), &Baseline::default());
        let refused = [Refused { what: "cudaGraphLaunch".into(), why: "it is not emulated".into(), at: Vec::new() }];
        assert_eq!(
            text(&judged, &refused, "/src/app"),
            "ERROR race on shared smem+0x10, in `sum` block (0,0,0)\n  \
             sum.cu:12  write: st.shared.f32 by thread 34 (warp 1, lane 2)\n  \
             sum.cu:14  read: ld.shared.f32 by thread 34 (warp 1, lane 2)\n  \
             cudaMalloc#1 (64 bytes) was allocated at sum.cu:30 (main)\n  \
             launched at sum.cu:40 (main)\n  \
             nothing orders the two accesses; 3 hits\n\
             NOT EMULATED `cudaGraphLaunch`: it is not emulated\n\
             1 error, 0 warnings; 1 not emulated\n"
        );
        let known = judge(&[race()], &Policy::default(), &Baseline::of(&judged));
        assert_eq!(text(&known, &[], "/src/app"), "0 errors, 0 warnings, 1 known\n");
    }
}
