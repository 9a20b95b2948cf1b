//! Backups of real servers by the `everpoint` command, restored and compared with what they were taken of.

mod everpoint;
mod inspected;
mod versions;

mod changes;
mod databases;
mod differential;
mod dropped;
mod filtered_log;
mod history;
mod interrupted;
mod into_server;
mod into_server_killed;
mod large;
mod one_database;
mod point_in_time;
mod settings;
mod tablespaces;
mod timelines;
mod told_both_ways;
mod whole;
