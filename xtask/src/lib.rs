//! What the project needs beside its product: the test cluster, generation, checks.

pub mod cluster;
