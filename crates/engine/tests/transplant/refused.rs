//! Refusals, all at once and before anything is touched.

use anyhow::Result;
use everpoint_engine::transplant::{Existing, MoveError, Refusal, plan};
use everpoint_testkit::{Cluster, run};

use crate::support::{request, shared};

#[test]
fn whatever_speaks_against_a_move_is_said_before_anything_is_touched() -> Result<()> {
    run(async {
        let source = Cluster::builder(18).tablespace("fast").start().await?;
        source.sql("postgres", "CREATE ROLE absent").await?;
        source
            .sql("postgres", "CREATE DATABASE shop OWNER absent")
            .await?;
        source
            .sql(
                "shop",
                "CREATE TABLE t (a int) TABLESPACE fast; GRANT SELECT ON t TO absent",
            )
            .await?;
        let target = Cluster::builder(15).start().await?;
        target
            .sql(
                "postgres",
                "CREATE ROLE least LOGIN; GRANT pg_read_all_settings TO least",
            )
            .await?;
        target.sql("postgres", "CREATE DATABASE taken").await?;
        let before = shared(&target).await?;
        let work = tempfile::tempdir()?;
        let mut wanted = request(&source, &target, "taken", work.path()).await?;
        wanted.target = wanted.target.with_user("least");
        let Err(MoveError::Refused(refusals)) = plan(wanted).await else {
            panic!("not refused");
        };
        let has = |wanted: fn(&Refusal) -> bool| refusals.0.iter().any(wanted);
        assert!(
            has(|r| matches!(r, Refusal::NameTaken { name } if name == "taken")),
            "{refusals}"
        );
        assert!(
            has(|r| matches!(r, Refusal::NoSuperuser { role } if role == "least")),
            "{refusals}"
        );
        assert!(
            has(|r| matches!(r, Refusal::OlderTarget { .. })),
            "{refusals}"
        );
        assert!(
            has(|r| matches!(r, Refusal::MissingRoles { roles } if roles == &["absent"])),
            "{refusals}"
        );
        assert!(
            has(
                |r| matches!(r, Refusal::MissingTablespaces { tablespaces } if tablespaces == &["fast"])
            ),
            "{refusals}"
        );
        let text = refusals.to_string();
        for remedy in [
            "--replace",
            "--admin-connection",
            "--create-roles",
            "--no-tablespaces",
        ] {
            assert!(text.contains(remedy), "{remedy} in {text}");
        }
        let mut wanted = request(&source, &target, "nothing_there", work.path()).await?;
        wanted.existing = Existing::Replace;
        let Err(MoveError::Refused(refusals)) = plan(wanted).await else {
            panic!("not refused");
        };
        assert!(refusals.0.contains(&Refusal::NothingToReplace {
            name: "nothing_there".to_owned()
        }));
        assert_eq!(shared(&target).await?, before);
        assert_eq!(std::fs::read_dir(work.path())?.count(), 0);
        Ok(())
    })
}

#[test]
fn extensions_that_the_target_lacks_are_named_with_their_versions() -> Result<()> {
    run(async {
        let source = Cluster::builder(15).start().await?;
        source.sql("postgres", "CREATE DATABASE shop").await?;
        // As a database would say of itself that has an extension which is installed nowhere else.
        source
            .sql("shop", "UPDATE pg_extension SET extname = 'nobody_has_it'")
            .await?;
        let target = Cluster::builder(15).start().await?;
        let work = tempfile::tempdir()?;
        let Err(MoveError::Refused(refusals)) =
            plan(request(&source, &target, "back", work.path()).await?).await
        else {
            panic!("not refused");
        };
        let text = refusals.to_string();
        assert!(text.contains("nobody_has_it 1.0"), "{text}");
        Ok(())
    })
}
