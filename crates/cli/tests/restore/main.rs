//! Backups of real servers by the `everpoint` command, restored and compared with what they were taken of.

mod everpoint;
mod versions;

mod changes;
mod databases;
mod differential;
mod interrupted;
mod large;
mod point_in_time;
mod settings;
mod tablespaces;
mod timelines;
mod whole;
