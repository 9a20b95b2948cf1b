//! A database into another instance's server, which has less than the one it comes from.

use anyhow::Result;
use everpoint_testkit::{Cluster, compare::assert_same_database, regression, run};

use crate::{
    everpoint::{Everpoint, REFUSED, store},
    remains::shared,
};

#[test]
fn another_server_takes_a_database_once_it_is_told_what_to_do_about_what_it_lacks() -> Result<()> {
    run(async {
        let old = Cluster::builder(17).tablespace("far").start().await?;
        let new = Cluster::builder(18).start().await?;
        let everpoint = Everpoint::with(&old).await?;
        let connection = new.connection_string("postgres");
        everpoint
            .json(&["instance", "add", "other", "--connection", &connection])
            .await?;
        regression::begin(&old, "kinds").await?;
        regression::complete(&old, "kinds").await?;
        old.sql(
            "kinds",
            "CREATE TABLE kinds.far TABLESPACE far AS SELECT generate_series(1, 500) AS id",
        )
        .await?;
        old.sql("postgres", "CREATE DATABASE odd").await?;
        // As a database says of itself that has an extension and a language which are installed nowhere else.
        old.sql(
            "odd",
            "UPDATE pg_extension SET extname = 'nobody_has_it';
             CREATE COLLATION elvish (provider = libc, locale = 'C');
             UPDATE pg_collation SET collcollate = 'elvish', collctype = 'elvish' WHERE collname = 'elvish'",
        )
        .await?;
        everpoint.full().await?;
        store(&everpoint, &old).await?;
        let before = shared(&new).await?;

        let to = ["main/kinds", "--to", "kinds", "--instance", "other"];
        let refused = everpoint.put_back(&to).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        for named in [
            "kind_owner",
            "kind_reader",
            "kind_writer",
            "Kind \"Group\"",
            "--create-roles",
            "far",
            "--no-tablespaces",
        ] {
            assert!(refused.err.contains(named), "{named} in {refused:?}");
        }
        assert!(!refused.err.contains("Moving"), "{refused:?}");
        let odd = ["main/odd", "--to", "odd", "--instance", "other"];
        let refused = everpoint.put_back(&odd).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("nobody_has_it 1.0"), "{refused:?}");
        assert!(refused.err.contains("public.elvish ("), "{refused:?}");
        assert!(refused.err.contains("Install the packages"), "{refused:?}");
        everpoint
            .assert_nothing_left(&new, &before, "refused")
            .await?;

        let mut all = to.to_vec();
        all.extend(["--create-roles", "--no-tablespaces"]);
        let done = everpoint.put_back(&all).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let expected = regression::content(&old, "kinds").await?;
        assert_same_database(&expected, &regression::content(&new, "kinds").await?);
        let roles = "SELECT string_agg(rolname, ',' ORDER BY rolname COLLATE \"C\") FROM pg_authid WHERE rolname ILIKE 'kind%'
            AND NOT rolcanlogin AND NOT rolsuper AND rolpassword IS NULL AND shobj_description(oid, 'pg_authid') IS NULL";
        assert_eq!(
            new.value("postgres", roles).await?,
            "Kind \"Group\",kind_owner,kind_reader,kind_writer"
        );
        everpoint.assert_scratch_empty("restored")?;

        // The other way it does not go: that is known before anything is fetched.
        everpoint
            .json(&["backup", "other", "--type", "full"])
            .await?;
        let before = shared(&old).await?;
        let back = ["other/kinds", "--to", "newer", "--instance", "main"];
        let refused = everpoint.put_back(&back).await?;
        assert_eq!(refused.code, Some(REFUSED), "{refused:?}");
        assert!(refused.err.contains("older than the 18"), "{refused:?}");
        assert!(!refused.err.contains("Fetching"), "{refused:?}");
        everpoint
            .assert_nothing_left(&old, &before, "refused")
            .await?;
        regression::remove(&new, "kinds").await
    })
}
