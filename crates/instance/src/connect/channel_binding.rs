//! The digest of a server's certificate that binds a password exchange to a TLS connection
//! (`tls-server-end-point`, RFC 5929 section 4.1; `be_tls_get_certificate_hash` in `be-secure-openssl.c`).

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use everpoint_pgformat::bytes::Reader;

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The digest, `None` when the certificate's signature names no hash of its own (Ed25519, RSA-PSS).
pub(super) fn certificate_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_hash(certificate)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash in a certificate's signature algorithm. MD5 and SHA-1 are replaced by SHA-256, says the RFC.
fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID .. }, .. }
    let mut fields = Reader::new(element(&mut Reader::new(certificate), SEQUENCE)?);
    element(&mut fields, SEQUENCE)?;
    let algorithm = element(&mut fields, SEQUENCE)?;
    let identifier = element(&mut Reader::new(algorithm), OBJECT_IDENTIFIER)?;
    match identifier {
        // 1.2.840.113549.1.1.n: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512.
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, hash] => match hash {
            4 | 5 | 11 => Some(&SHA256),
            12 => Some(&SHA384),
            13 => Some(&SHA512),
            _ => None,
        },
        // 1.2.840.10045.4.1: ECDSA with SHA-1; .3.n: with SHA-256, SHA-384, SHA-512.
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1] => Some(&SHA256),
        [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, hash] => match hash {
            2 => Some(&SHA256),
            3 => Some(&SHA384),
            4 => Some(&SHA512),
            _ => None,
        },
        _ => None,
    }
}

/// Takes an element of the given tag off the front, and gives its contents.
fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    if reader.u8()? != tag {
        return None;
    }
    let first = reader.u8()?;
    let len = match first {
        0..=0x7F => usize::from(first),
        0x81..=0x84 => {
            let digits = reader.take(usize::from(first & 0x7F))?;
            digits
                .iter()
                .fold(0, |len, &digit| len << 8 | usize::from(digit))
        }
        _ => return None,
    };
    reader.take(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_has_no_digest() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x30, 0x80],
        ] {
            assert!(certificate_digest(bytes).is_none());
        }
    }

    #[test]
    fn ecdsa_with_sha384_is_recognised() {
        let certificate = [
            &[0x30, 0x10, 0x30, 0x00, 0x30, 0x0A, 0x06, 0x08][..],
            &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3, 0x03, 0x00],
        ]
        .concat();
        assert_eq!(certificate_digest(&certificate).unwrap().len(), 48);
    }
}
