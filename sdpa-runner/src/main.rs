//! One process, one job: JSON in, JSON out.

fn main() {}
