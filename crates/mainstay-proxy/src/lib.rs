//! (empty until its first code)
