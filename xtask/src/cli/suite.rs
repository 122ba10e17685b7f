//! The suite that a command works on: its name or file by position or behind `--suite`, or an option of its own name for
//! each suite that is there.

use std::sync::LazyLock;

use clap::error::Error;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use crate::layout::{Layout, program};
use crate::plan::suites;

/// The suite where none is named.
const USUAL: &str = "stage5";
/// The group of everything that names a suite: at most one of them may be given.
pub const GROUP: &str = "suite";
/// The argument by position, and the one behind `--suite`.
const POSITION: &str = "suite-position";
const OPTION: &str = "suite-option";
/// What the id of a suite's own option begins with.
const OWN: &str = "suite-own-";

/// How a command that takes suites is written, after the program's name.
pub fn usage(rest: &str) -> String {
    format!("{} {rest}", program())
}

/// Name and purpose of the suites that are there; none outside a checkout or dist folder.
static SUITES: LazyLock<Vec<(String, String)>> =
    LazyLock::new(|| Layout::find().map(|layout| suites(&layout)).unwrap_or_default());

/// What was named, if anything. Where the positional arguments are something else, only options name a suite.
pub struct Choice<const BY_POSITION: bool> {
    named: Option<String>,
}

impl<const BY_POSITION: bool> Choice<BY_POSITION> {
    /// What was named.
    pub fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }

    /// What was named, or the usual suite.
    pub fn or_usual(&self) -> &str {
        self.named().unwrap_or(USUAL)
    }
}

impl<const BY_POSITION: bool> FromArgMatches for Choice<BY_POSITION> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let text = |id| matches.try_get_one::<String>(id).ok().flatten().cloned();
        let own = matches.ids().filter_map(|id| id.as_str().strip_prefix(OWN).map(|name| (id, name)));
        let given = own.filter(|(id, _)| matches.get_flag(id.as_str())).map(|(_, name)| name.to_owned()).next();
        Ok(Choice { named: text(POSITION).or_else(|| text(OPTION)).or(given) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Choice::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const BY_POSITION: bool> Args for Choice<BY_POSITION> {
    /// Comes after all other arguments of a command: a suite whose name is taken gets no option of its own.
    fn augment_args(mut command: Command) -> Command {
        let mut ids = vec![OPTION.to_owned()];
        if BY_POSITION {
            let help = format!("The suite: its name, or a gate file, which ends in .toml [default: {USUAL}]");
            command = command.arg(Arg::new(POSITION).value_name("GATE.toml | SUITE").help(help));
            ids.push(POSITION.to_owned());
        }
        let help = "The suite by its name, or by a file that ends in .toml";
        command = command.arg(Arg::new(OPTION).long("suite").value_name("SUITE").help(help));
        for (name, about) in SUITES.iter() {
            let is_taken = command.get_arguments().any(|argument| argument.get_long() == Some(name));
            let is_word = name.starts_with(|c: char| c.is_alphanumeric())
                && name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c));
            if is_taken || !is_word || ["help", "version"].contains(&name.as_str()) {
                continue;
            }
            let id = format!("{OWN}{name}");
            let option = Arg::new(id.clone()).long(name.clone()).action(ArgAction::SetTrue);
            command = command.arg(option.help(about.clone()).help_heading("Suites that are here"));
            ids.push(id);
        }
        command.group(ArgGroup::new(GROUP).args(ids))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_named_in_three_ways_and_never_takes_an_option_away() {
        let named = |arguments: &[&str]| {
            let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
            let taken = Arg::new("taken").long("stage4").action(ArgAction::SetTrue);
            let command = Choice::<true>::augment_args(Command::new("x").args([json, taken]));
            let matches = command.try_get_matches_from([&["x"], arguments].concat()).unwrap();
            Choice::<true>::from_arg_matches(&matches).unwrap().named
        };
        assert_eq!(named(&[]), None);
        for arguments in [["--stage5", "--json"], ["stage5", "--json"], ["--suite", "stage5"]] {
            assert_eq!(named(&arguments).as_deref(), Some("stage5"), "{arguments:?}");
        }
        assert_eq!(named(&["my/gate.toml"]).as_deref(), Some("my/gate.toml"));
        assert_eq!(named(&["--stage4"]), None, "an option of the command's own");
    }
}
