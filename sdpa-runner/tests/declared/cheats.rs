//! What callables try, and what becomes of each: the list stood before anything that rejects them. Leaves to others: trying
//! them (`callable`), and the same list on a GPU.

/// Where a cheat ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is none: everything passes.
    Passes,
    /// Refused when it is called, with these words.
    Refused(&'static str),
    /// Its output is unlike the reference's.
    Wrong,
    /// The outcome of a checked launch says that it wrote to an input.
    WroteInput,
    /// A timed launch left another output than the verified one.
    TimedOutput,
    /// Refused once it is timed, with these words.
    RefusedWhenTimed(&'static str),
    /// Its own clock does not fit the judge's.
    OwnClock,
    /// Refused on a GPU, which it keeps busy while others are timed.
    DeviceBusy,
    /// Nobody sees it, and the report names it.
    Unseen(&'static str),
}

/// Functions of `data/callable/cheats.py`.
pub const CHEATS: &[(&str, End)] = &[
    ("honest", End::Passes),
    ("honest_return", End::Passes),
    ("waits_for_the_device", End::Passes),
    ("returns_its_input", End::Refused("returns memory of `x`")),
    ("returns_nothing", End::Refused("returns nothing")),
    ("returns_another_shape", End::Refused("has the shape")),
    ("returns_another_type", End::Refused("is float64")),
    ("returns_what_is_no_tensor", End::Refused("is no plain tensor")),
    ("reuses_its_output", End::RefusedWhenTimed("returns memory that an earlier call returned")),
    ("writes_nothing", End::Wrong),
    ("writes_into_an_input", End::WroteInput),
    ("caches_by_pointer", End::Wrong),
    ("caches_by_value", End::Wrong),
    ("honest_at_first", End::TimedOutput),
    ("on_a_side_stream", End::OwnClock),
    ("with_a_patched_event", End::OwnClock),
    ("with_a_patched_clock", End::Passes),
    ("works_in_others_turns", End::Passes),
    ("leaves_work_behind", End::DeviceBusy),
    ("works_at_import", End::Unseen("at import")),
    ("opens_a_socket", End::Refused("Error")),
    ("starts_a_process", End::RefusedWhenTimed("PermissionError")),
    ("forks", End::RefusedWhenTimed("PermissionError")),
    ("never_returns", End::Refused("took longer than")),
    ("takes_all_memory", End::Refused("of memory")),
    ("reads_outside", End::Refused("Permission")),
    ("writes_outside", End::Refused("Permission")),
];

#[test]
fn every_function_of_the_file_has_an_end_and_only_one() {
    let text = include_str!("../data/callable/cheats.py");
    let defined: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("def ")?.split_once('(')).map(|(name, _)| name).collect();
    let listed: Vec<&str> = CHEATS.iter().map(|(name, _)| *name).collect();
    assert_eq!(defined, listed);
}
