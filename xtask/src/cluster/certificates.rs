//! The cluster's own authority and everything it signs. Nothing here touches a disk or another process.
//!
//! Keys are ECDSA P-256: made in microseconds, and accepted by every program of the cluster, service-account tokens
//! included. Each identity is the one the server's built-in roles expect, so that RBAC is exercised and not bypassed.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A key pair without certificate, both halves PEM.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) public: String,
    pub(super) private: String,
}

/// The authority of one cluster.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    pub(super) certificate: String,
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "agents-test-cluster");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().context("cannot make the authority's key")?;
        let certificate = params.self_signed(&key).context("cannot sign the authority")?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A client certificate: user and group as the API server reads them.
    pub(super) fn client(&self, user: &str, group: Option<&str>) -> Result<Signed> {
        self.sign(user, group, &[], &[])
    }

    /// A certificate that serves these names and addresses, and is a client too.
    pub(super) fn server(
        &self,
        user: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[Ipv4Addr],
    ) -> Result<Signed> {
        self.sign(user, group, names, addresses)
    }

    fn sign(&self, user: &str, group: Option<&str>, names: &[&str], addresses: &[Ipv4Addr]) -> Result<Signed> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).context("a name cannot stand in a certificate")?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress((*address).into())));
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !params.subject_alt_names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("cannot sign {user}"))?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// The key pair service-account tokens are signed with.
pub(super) fn token_keys() -> Result<Pair> {
    let key = KeyPair::generate().context("cannot make the service-account key")?;
    Ok(Pair { public: key.public_key_pem(), private: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    fn parts(signed: &Signed) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
        (vec![certificate], PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap())
    }

    /// Both sides check each other, as the API server and its clients do; `Err` names the refusal.
    fn handshake(authority: &Authority, server: &Signed, client: &Signed, name: &str) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
        let (chain, key) = parts(server);
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        let (chain, key) = parts(client);
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name.to_owned()).unwrap())?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        server.writer().flush().unwrap();
        Ok(())
    }

    #[test]
    fn the_server_answers_to_its_names_and_to_no_other() {
        let authority = Authority::new().unwrap();
        let addresses = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 96, 0, 1)];
        let server = authority.server("kube-apiserver", None, &["kubernetes.default.svc"], &addresses).unwrap();
        let client = authority.client("admin", Some("system:masters")).unwrap();
        for name in ["127.0.0.1", "10.96.0.1", "kubernetes.default.svc"] {
            handshake(&authority, &server, &client, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in ["10.96.0.2", "example.com"] {
            assert!(handshake(&authority, &server, &client, name).is_err(), "{name} was accepted");
        }
    }

    #[test]
    fn another_clusters_client_is_refused() {
        let authority = Authority::new().unwrap();
        let server = authority.server("kube-apiserver", None, &[], &[Ipv4Addr::LOCALHOST]).unwrap();
        let stranger = Authority::new().unwrap().client("admin", Some("system:masters")).unwrap();
        assert!(handshake(&authority, &server, &stranger, "127.0.0.1").is_err());
    }
}
