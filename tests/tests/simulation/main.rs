//! Ring 2: the real controller against the API model under paused time, with everything that can go wrong between them.
//!
//! [`workload`] holds the stories that are told again and again, [`play`] how one is played and what it came to. Every
//! other room is one way of disturbing them, and its measure is the same: the end of the undisturbed story, at most one
//! execution per attempt, nothing stuck, nothing written once all is said.

mod again;
mod costs;
mod crash;
mod declarations;
mod election;
mod fault;
mod forged;
mod happy;
mod held;
mod neighbours;
mod play;
mod rate;
mod references;
mod restart;
mod signals;
mod silent;
mod strays;
mod two;
mod unstored;
mod upgrade;
mod workload;
