package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// minRSABits is the least RSA key RFC 7518 §3.3 allows.
const minRSABits = 2048

// StaticKeys is a KeySource with a fixed set of keys; a token's kid is not
// looked at, its signature decides.
type StaticKeys []crypto.PublicKey

// PublicKeys implements KeySource.
func (k StaticKeys) PublicKeys(_, _ string) []Key {
	keys := make([]Key, len(k))
	for i, key := range k {
		keys[i].Public = key
	}
	return keys
}

// KeysFromFile reads public keys, or certificates with them, from a PEM file.
func KeysFromFile(path string) (StaticKeys, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("auth: reading JWT keys: %w", err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("auth: JWT keys in %s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads the public keys and certificates of a PEM text. Anything else
// in it is an error: a private key has no place on a server that only verifies.
// So is a key that no token would be checked against: it is better missed at the
// start than by its users.
func ParseKeys(data []byte) (StaticKeys, error) {
	var keys StaticKeys
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		key, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, key)
	}
	if begun := bytes.Count(data, []byte("-----BEGIN ")); begun != len(keys) {
		return nil, fmt.Errorf("of %d PEM blocks %d can be read", begun, len(keys)) // pem.Decode passes over the others
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block with a public key or a certificate")
	}
	for _, alg := range keyAlgorithms {
		if n := len(fitting(keys.PublicKeys("", alg), alg)); n > maxKeysTried {
			return nil, fmt.Errorf("%d keys for %s: a token is checked against %d at most (a JWK set tells by kid which one it is)", n, alg, maxKeysTried)
		}
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	var key crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("%q is not a public key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	return key, usable(key)
}

// usable says why a key can't verify any of our algorithms.
func usable(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Errorf("an RSA key of %d bits, at least %d are needed", k.N.BitLen(), minRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fmt.Errorf("an ECDSA key on %s, only P-256 (ES256) is supported", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a %T: only RSA, ECDSA P-256 and Ed25519 are supported", key)
	}
	return nil
}

// KeySources are several sources as one: a key file beside a JWK set.
type KeySources []KeySource

// PublicKeys implements KeySource.
func (s KeySources) PublicKeys(kid, alg string) (keys []Key) {
	for _, source := range s {
		keys = append(keys, source.PublicKeys(kid, alg)...)
	}
	return keys
}
