//! Coordinators on stores that fail, with participants that are lost, late and repeated.

mod lists;
mod seeds;
mod stories;
mod town;
