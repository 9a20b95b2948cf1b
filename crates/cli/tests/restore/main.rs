//! Backups of real servers by the `everpoint` command, restored and compared with what they were taken of.

mod everpoint;
mod versions;

mod point_in_time;
mod whole;
