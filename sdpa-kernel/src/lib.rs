//! The attention kernels, the registry of their variants, and the layout of what crosses to the device.
