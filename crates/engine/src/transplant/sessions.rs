//! Sessions of a move that work side by side: several on each server, each pair with a piece of the work.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use futures_util::future::try_join_all;

use super::{error::MoveError, server::Session, stream, tables::Piece};
use crate::progress::Progress;

/// What begins a transaction of the source. Definitions are read by `pg_dump` under the same snapshot.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// What rows as text depend on, alike on both servers.
const TEXT: &str = "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
    SET bytea_output = 'hex'; SET xmloption = content; SET row_security = off; SET synchronize_seqscans = off";

/// Work that whoever is free takes the next of.
pub(super) struct Queue<T>(Mutex<VecDeque<T>>);

impl<T> Queue<T> {
    pub(super) fn new(items: impl Into<VecDeque<T>>) -> Self {
        Self(Mutex::new(items.into()))
    }

    pub(super) fn next(&self) -> Option<T> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// Sets what rows depend on, and the encoding that they are sent in: the source's own.
pub(super) async fn prepare(session: &Session, encoding: &str) -> Result<(), MoveError> {
    let encoding = everpoint_instance::grant::quote_literal(encoding);
    session
        .run(
            "prepare a session",
            &format!("{TEXT}; SET client_encoding = {encoding}"),
        )
        .await
}

/// Copies all pieces. Every pair of sessions takes the next one when it is done with one. Returns the rows.
pub(super) async fn copy(
    sources: &[Session],
    targets: &[Session],
    pieces: impl Into<VecDeque<Piece>>,
    progress: &Progress,
) -> Result<u64, MoveError> {
    let pieces = Queue::new(pieces);
    let mut streams = Vec::new();
    for (source, target) in sources.iter().zip(targets) {
        streams.push(copy_next(source, target, &pieces, progress));
    }
    Ok(try_join_all(streams).await?.into_iter().sum())
}

async fn copy_next(
    source: &Session,
    target: &Session,
    pieces: &Queue<Piece>,
    progress: &Progress,
) -> Result<u64, MoveError> {
    let mut rows = 0;
    while let Some(piece) = pieces.next() {
        rows += stream::copy(source, target, &piece, progress).await?;
    }
    Ok(rows)
}

/// Runs statements, which may come in any order, on several sessions.
pub(super) async fn run_all(
    sessions: &[Session],
    what: &str,
    statements: Vec<String>,
) -> Result<(), MoveError> {
    let statements = Queue::new(statements);
    let mut work = Vec::new();
    for session in sessions {
        work.push(run_next(session, what, &statements));
    }
    try_join_all(work).await.map(drop)
}

async fn run_next(
    session: &Session,
    what: &str,
    statements: &Queue<String>,
) -> Result<(), MoveError> {
    while let Some(statement) = statements.next() {
        session.run(what, &statement).await?;
    }
    Ok(())
}

/// Gathers statistics of tables, whose names are quoted.
pub(super) async fn analyze(sessions: &[Session], tables: Vec<String>) -> Result<(), MoveError> {
    let statements = tables.iter().map(|table| format!("ANALYZE {table}"));
    run_all(sessions, "gather statistics", statements.collect()).await
}
