//! Every row of the transition table, the worked examples, and what must always hold.

mod amendments;
mod answers;
mod examples;
mod properties;
mod rows;
mod stage;
