//! What is said of a command line that is wrong, and of everything else that goes wrong: one line, once.

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use clap::error::ErrorKind;
use kbench::exit::Exit;

/// The arguments of this process, program name first.
pub fn arguments() -> Result<Vec<String>> {
    let decoded = |argument: std::ffi::OsString| {
        argument.into_string().map_err(|raw| anyhow!("the argument `{}` is not UTF-8", raw.to_string_lossy()))
    };
    std::env::args_os().map(decoded).collect()
}

/// What was asked for; the inner error is the exit status where that was help, which is printed here.
pub fn parse<C: Parser>(arguments: Vec<String>) -> Result<std::result::Result<C, Exit>> {
    let error = match C::try_parse_from(arguments) {
        Ok(asked) => return Ok(Ok(asked)),
        Err(error) => error,
    };
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Good,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Environment,
        _ => bail!("{}", usage(&error.render().to_string())),
    };
    // Whoever reads no further (`| head`) has seen enough.
    let _ = error.print();
    Ok(Err(exit))
}

/// clap's words without its usage block: what is wrong, then its tips.
fn usage(rendered: &str) -> String {
    let said = rendered.split("\nUsage:").next().unwrap_or_default();
    let lines =
        said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let line = lines.fold(String::new(), |line, more| match (line.is_empty(), more.strip_prefix("tip: ")) {
        (true, _) => more.trim_start_matches("error: ").to_owned(),
        (false, Some(tip)) => format!("{line}; {tip}"),
        (false, None) => format!("{line} {more}"),
    });
    format!("{line}; see --help")
}

/// An error and its causes as one line. A cause that the error says itself is not said again.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let words = joined(&cause.to_string());
        if line.is_empty() {
            line = words;
        } else if !line.contains(&words) {
            line = format!("{line}: {words}");
        }
    }
    line
}

/// The lines of a text as one, without the excerpt by which a TOML reader shows the place that it has named.
fn joined(text: &str) -> String {
    let is_excerpt =
        |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c.is_whitespace()).starts_with('|');
    let lines = text.lines().filter(|line| !is_excerpt(line)).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn what_clap_says_is_one_line_with_its_tip() {
        let rendered = "error: unexpected argument '--smok' found\n\n  tip: a similar argument exists: '--smoke'\n\n\
                        Usage: xtask validate\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage(rendered),
            "unexpected argument '--smok' found; a similar argument exists: '--smoke'; see --help"
        );
        let rendered = "error: the following required arguments were not provided:\n  <RUN>\n\nUsage: x\n";
        assert_eq!(usage(rendered), "the following required arguments were not provided: <RUN>; see --help");
    }

    #[test]
    fn a_cause_is_said_once_and_no_excerpt_is_shown() {
        let inner = anyhow!("TOML parse error at line 1, column 8\n  |\n1 | name = 3\n  |        ^\nnot a string\n");
        let said = format!("{inner}");
        let error = inner.context(said).context("suite file `x.toml`");
        let line = one_line(&error);
        assert_eq!(line, "suite file `x.toml`: TOML parse error at line 1, column 8: not a string");
        let none: Option<()> = None;
        assert_eq!(one_line(&none.context("a\n").unwrap_err()), "a");
    }
}
