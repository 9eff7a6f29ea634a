//! Checkpoints against a real file system.
