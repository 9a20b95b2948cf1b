//! Authentication and TLS, over SQL and over the replication protocol.

use anyhow::Result;
use everpoint_instance::{
    ConnectError, ConnectionSpec, ReplicationClient, ReplicationError, StreamEvent, connect_sql,
    replication::StreamStart,
};
use everpoint_pgformat::wal::segment::{SegmentName, SegmentSize};
use everpoint_testkit::{Cluster, Scratch, on_every_version};

use crate::spec::{spec, tcp_spec};

/// Both ways in, which must agree.
async fn log_in(spec: &ConnectionSpec) -> Result<(), ConnectError> {
    let sql = connect_sql(spec, "postgres").await.map(drop);
    let replication = match ReplicationClient::connect(spec).await {
        Ok(mut client) => client.identify_system().await.map(drop),
        Err(error) => Err(error),
    };
    match (sql, replication) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(sql), Err(ReplicationError::Connect(replication))) => {
            let same = std::mem::discriminant(&sql) == std::mem::discriminant(&replication);
            assert!(same, "{sql:?}\n{replication:?}");
            Err(sql)
        }
        (sql, replication) => panic!("SQL: {sql:?}, replication: {replication:?}"),
    }
}

/// A cluster with TLS, and the certificate that signed its own.
struct Encrypted {
    cluster: Cluster,
    roots: Scratch,
}

impl Encrypted {
    async fn start(major: u16) -> Result<Self> {
        let mut cluster = Cluster::builder(major).on_loopback().start().await?;
        let roots = cluster.encrypt().await?;
        cluster
            .sql(
                "postgres",
                "CREATE ROLE alice LOGIN REPLICATION PASSWORD 'sesame'",
            )
            .await?;
        let lines = "hostssl all alice all scram-sha-256\nhostssl replication alice all scram-sha-256\n\
                     host all alice all reject\nhost replication alice all reject";
        cluster.let_in(lines).await?;
        Ok(Self { cluster, roots })
    }

    async fn try_with(&self, rest: &str) -> Result<(), ConnectError> {
        let rest = rest.replace("ROOTS", &self.roots.path().display().to_string());
        let spec = tcp_spec(&self.cluster, &format!("user=alice password=sesame {rest}"));
        log_in(&spec.unwrap()).await
    }
}

on_every_version! {
    async fn every_password_method_lets_the_right_password_in(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).on_loopback().start().await?;
        for (method, encryption) in [
            ("scram-sha-256", "scram-sha-256"),
            ("md5", "md5"),
            ("password", "scram-sha-256"),
        ] {
            let role = format!("by_{}", method.replace('-', "_"));
            let sql = format!(
                "SET password_encryption = '{encryption}'; \
                 CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pass''wörd'"
            );
            cluster.sql("postgres", &sql).await?;
            let lines = format!("host all {role} all {method}\nhost replication {role} all {method}");
            cluster.let_in(&lines).await?;
            log_in(&tcp_spec(&cluster, &format!("user={role} password='pass\\'wörd'"))?).await?;
            let wrong = tcp_spec(&cluster, &format!("user={role} password=guess"))?;
            assert!(matches!(log_in(&wrong).await, Err(ConnectError::Authentication { .. })));
            let none = tcp_spec(&cluster, &format!("user={role} passfile=/nowhere"))?;
            assert!(matches!(log_in(&none).await, Err(ConnectError::NoPassword { .. })));
        }
        Ok(())
    }

    async fn trusted_roles_need_no_password_and_unknown_ones_are_refused(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).on_loopback().start().await?;
        log_in(&spec(&cluster)?).await?;
        let nobody = spec(&cluster)?.with_user("nobody");
        assert!(matches!(log_in(&nobody).await, Err(ConnectError::Authentication { .. })));
        cluster.let_in("host all all all reject\nhost replication all all reject").await?;
        let error = log_in(&tcp_spec(&cluster, "user=postgres")?).await.unwrap_err();
        assert!(error.to_string().contains("pg_hba.conf"), "{error}");
        assert!(!error.is_transient());
        cluster.sql("postgres", "CREATE ROLE reader LOGIN").await?;
        let reader = spec(&cluster)?.with_user("reader");
        let error = ReplicationClient::connect(&reader).await.unwrap_err();
        assert!(matches!(error, ReplicationError::NotAllowed { .. }), "{error}");
        assert!(error.to_string().contains("ALTER ROLE \"reader\" REPLICATION"), "{error}");
        Ok(())
    }

    async fn certificates_are_checked_as_far_as_asked(server: Server) -> Result<()> {
        let encrypted = Encrypted::start(server.major()).await?;
        for accepted in [
            "sslmode=prefer",
            "sslmode=require",
            "sslmode=require channel_binding=require",
            "sslmode=verify-ca sslrootcert=ROOTS/root.crt",
            "sslmode=verify-full sslrootcert=ROOTS/root.crt channel_binding=require",
            "sslmode=verify-ca sslrootcert=ROOTS/server.crt",
            "sslmode=verify-ca sslrootcert=ROOTS/root.crt host=127.0.0.1",
            "sslmode=verify-full sslrootcert=ROOTS/root.crt hostaddr=127.0.0.1",
            "sslmode=require channel_binding=disable",
        ] {
            encrypted.try_with(accepted).await.map_err(|error| anyhow::anyhow!("{accepted}: {error:?}"))?;
        }
        for (refused, hint) in [
            ("sslmode=verify-ca sslrootcert=ROOTS/other.crt", "sslrootcert"),
            ("sslmode=require sslrootcert=ROOTS/other.crt", "sslrootcert"),
            ("sslmode=verify-full sslrootcert=ROOTS/root.crt host=127.0.0.1", "verify-ca"),
        ] {
            let Err(ConnectError::Tls { source, .. }) = encrypted.try_with(refused).await else {
                panic!("{refused} was not refused");
            };
            assert!(source.to_string().contains(hint), "{refused}: {source}");
        }
        let plain = encrypted.try_with("sslmode=disable").await;
        assert!(matches!(plain, Err(ConnectError::Authentication { .. })));
        if server.major() >= 17 {
            encrypted.try_with("sslmode=require sslnegotiation=direct").await?;
        }
        Ok(())
    }

    async fn stream_is_the_same_through_tls(server: Server) -> Result<()> {
        let encrypted = Encrypted::start(server.major()).await?;
        let cluster = &encrypted.cluster;
        cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 100000) AS a").await?;
        let spec = tcp_spec(cluster, "user=alice password=sesame sslmode=require")?;
        let mut client = ReplicationClient::connect(&spec).await?;
        let identity = client.identify_system().await?;
        let from = SegmentSize::DEFAULT.floor(identity.flushed);
        let start = StreamStart { slot: None, from, timeline: identity.timeline };
        let mut stream = client.start(&start).await?;
        let mut received = Vec::new();
        while from.advance(received.len() as u64) < identity.flushed {
            if let StreamEvent::Data { bytes, .. } = stream.next().await? {
                received.extend_from_slice(&bytes);
            }
        }
        let segment = SegmentSize::DEFAULT.segment_of(from);
        let name = SegmentName::new(identity.timeline, segment, SegmentSize::DEFAULT);
        let file = std::fs::read(cluster.data_directory().join(format!("pg_wal/{name}")))?;
        assert!(file.starts_with(&received), "{name} differs");
        Ok(())
    }

    async fn server_without_tls_is_refused_where_tls_is_required(server: Server) -> Result<()> {
        let cluster = Cluster::builder(server.major()).on_loopback().start().await?;
        let error = log_in(&tcp_spec(&cluster, "user=postgres sslmode=require")?).await.unwrap_err();
        let ConnectError::Tls { source, .. } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("ssl = on"), "{source}");
        log_in(&tcp_spec(&cluster, "user=postgres sslmode=prefer")?).await?;
        // Nothing to encrypt on a socket, as in libpq.
        let text = format!("{} sslmode=require", cluster.connection_string("postgres"));
        log_in(&text.parse()?).await?;
        let bound = tcp_spec(&cluster, "user=postgres channel_binding=require")?;
        assert!(log_in(&bound).await.is_err());
        Ok(())
    }

    async fn first_server_of_the_wanted_kind_is_taken(server: Server) -> Result<()> {
        let primary = Cluster::builder(server.major()).start().await?;
        let standby = primary.make_standby().await?;
        let hosts = format!("{},{}", standby.socket_dir().display(), primary.socket_dir().display());
        let connected_to = async |kind: &str| -> Result<Option<String>> {
            let spec: ConnectionSpec =
                format!("host={hosts} port=5432 user=postgres target_session_attrs={kind}").parse()?;
            let client = connect_sql(&spec, "postgres").await?;
            let replication = ReplicationClient::connect(&spec).await?;
            assert_eq!(client.endpoint(), replication.endpoint());
            Ok(client.endpoint().to_string().rsplit_once('/').map(|(directory, _)| directory.to_owned()))
        };
        let (first, second) = (standby.socket_dir(), primary.socket_dir());
        for (kind, place) in [
            ("any", first),
            ("primary", second),
            ("read-write", second),
            ("standby", first),
            ("prefer-standby", first),
        ] {
            assert_eq!(connected_to(kind).await?.as_deref(), place.to_str(), "{kind}");
        }
        let spec = primary.connection_string("postgres") + " target_session_attrs=standby";
        assert!(matches!(log_in(&spec.parse()?).await, Err(ConnectError::OtherKind { .. })));
        Ok(())
    }
}
