//! Backups of real servers by the `everpoint` command, restored and compared with what they were taken of.

mod everpoint;
mod inspected;
mod remains;
mod versions;

mod among_others;
mod caged;
mod changes;
mod clock;
mod databases;
mod differential;
mod doubtful_changes;
mod dropped;
mod every_kind;
mod filtered_log;
mod history;
mod interrupted;
mod into_server;
mod into_server_by_files;
mod into_server_killed;
mod killed_at_every_state;
mod large;
mod long_term;
mod one_database;
mod point_in_time;
mod refused_names;
mod replicas;
mod second_cluster;
mod settings;
mod table;
mod tablespaces;
mod timelines;
mod told_both_ways;
mod unlogged;
mod whole;
