//! What is computed. Leaves to others: how it is computed, and how well.

pub mod declared;
