//! Who may log in, and TLS.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::Cluster;
use crate::Scratch;

impl Cluster {
    /// Puts lines in front of `pg_hba.conf`, which hold as soon as this returns.
    ///
    /// # Errors
    /// When the file cannot be changed, or the server does not read it.
    pub async fn let_in(&self, lines: &str) -> Result<()> {
        let path = self.data_directory().join("pg_hba.conf");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, format!("{lines}\n{text}"))?;
        self.sql("postgres", "SELECT pg_reload_conf()").await?;
        // The postmaster reads it when it gets to: a session that it starts afterwards has seen it.
        let seen = "SELECT count(*) > 0 FROM pg_hba_file_rules WHERE line_number = 1";
        self.wait_until_true(seen, "read pg_hba.conf").await?;
        drop(self.connect("postgres").await?);
        Ok(())
    }

    /// Restarts the server with TLS, under a certificate for the name `localhost`. Returns a directory with that
    /// (`server.crt`), the one it is signed by (`root.crt`), and one that has nothing to do with it (`other.crt`).
    ///
    /// # Errors
    /// When files cannot be written, or the server does not start.
    pub async fn encrypt(&mut self) -> Result<Scratch> {
        let roots = Scratch::new()?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let root = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let other = KeyPair::generate()?;
        let other = CertificateParams::new(Vec::new())?.self_signed(&other)?;
        for (name, pem) in [
            ("root.crt", root.pem()),
            ("other.crt", other.pem()),
            ("server.crt", certificate.pem()),
        ] {
            fs::write(roots.path().join(name), pem)?;
        }
        self.write_private("server.crt", &certificate.pem())?;
        self.write_private("server.key", &key.serialize_pem())?;
        self.configure("ssl = on")?;
        self.restart().await?;
        Ok(roots)
    }

    /// Writes a file into the data directory that only its owner, the server, can read.
    fn write_private(&self, name: &str, contents: &str) -> Result<()> {
        let root = self.data_directory();
        let path = root.join(name);
        fs::write(&path, contents)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(root)?;
        Ok(std::os::unix::fs::chown(
            &path,
            Some(owner.uid()),
            Some(owner.gid()),
        )?)
    }
}
