//! What a stack is on this host, what of it an archive covers, who writes to
//! it, and how it is stopped and started.

pub mod coverage;
pub mod driver;
pub mod journal;
pub mod quiet;
pub mod running;
pub mod survey;
