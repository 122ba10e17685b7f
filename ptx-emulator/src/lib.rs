//! Executes PTX on the CPU with checking modes. Knows nothing of attention.
