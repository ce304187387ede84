//! Boards as they are documented, hostile trees, warnings, throttling.

mod boards;
mod hostile;
mod throttling;
mod warned;
