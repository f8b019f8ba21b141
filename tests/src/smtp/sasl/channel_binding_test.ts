/** tls-server-end-point over certificates of every kind of signature, and over garbage. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { tlsServerEndPoint } from "../../../../src/smtp/sasl/channel_binding.ts";
import { fromBase64 } from "../../../../src/smtp/sasl/octets.ts";

/** Certificates made for this test, and the hash that RFC 5929, section 4.1, asks for. */
const CERTIFICATES = [
  {
    signature: "ECDSA with SHA-1",
    hash: "sha256",
    der:
      "MIIBbDCCARSgAwIBAgIUU7h+SLThkd5ZjSH4Uuq11ffOwg0wCQYHKoZIzj0EATAMMQowCAYDVQQDDAFhMCAXDTI2MT" +
      "EyMjExMzcwMFoYDzIwNTEwNzE0MTEzNzAwWjAMMQowCAYDVQQDDAFhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE" +
      "8Eg3cztxiDE8gMhVXv+sZF7FhEkbK6K8K5ld3+06WYsXCatC0MIUpzcOq9g/cuVEXI66Cb9C+FvLEF5+FTBh6qNTMF" +
      "EwHQYDVR0OBBYEFPnBCepdBsNNLB6Q/2KxmAxT86ZnMB8GA1UdIwQYMBaAFPnBCepdBsNNLB6Q/2KxmAxT86ZnMA8G" +
      "A1UdEwEB/wQFMAMBAf8wCQYHKoZIzj0EAQNHADBEAiBpDkYgEmbN7XWiJwpalVgaAxWmtbAQAfF0ztCl4Q9BmQIgCs" +
      "F6ctiuQ6uSpdMzaYNANKjPZNkmfaJo2uSQVZMNrTM=",
  },
  {
    signature: "ECDSA with SHA-256",
    hash: "sha256",
    der:
      "MIIBcDCCARWgAwIBAgIUXXRKX/hla5SxiNLdnheM4hjhXDUwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBYTAgFw0yNj" +
      "ExMjIxMTM3MDBaGA8yMDUxMDcxNDExMzcwMFowDDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA" +
      "BPBIN3M7cYgxPIDIVV7/rGRexYRJGyuivCuZXd/tOlmLFwmrQtDCFKc3DqvYP3LlRFyOugm/QvhbyxBefhUwYeqjUz" +
      "BRMB0GA1UdDgQWBBT5wQnqXQbDTSwekP9isZgMU/OmZzAfBgNVHSMEGDAWgBT5wQnqXQbDTSwekP9isZgMU/OmZzAP" +
      "BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCggcr74IGErHA0JZgsBCNY/FUEzueyhbz0GMyZnYl9IQ" +
      "IhAJbmYqyCZD/Ef5QqLDoLVrBAD2VeHr0ViaIpasPaDdp4",
  },
  {
    signature: "ECDSA with SHA-384",
    hash: "sha384",
    der:
      "MIIBbzCCARWgAwIBAgIUQd+X3g6s8HX4SnM4mnYeTRwuVV4wCgYIKoZIzj0EAwMwDDEKMAgGA1UEAwwBYTAgFw0yNj" +
      "ExMjIxMTM3MDBaGA8yMDUxMDcxNDExMzcwMFowDDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA" +
      "BPBIN3M7cYgxPIDIVV7/rGRexYRJGyuivCuZXd/tOlmLFwmrQtDCFKc3DqvYP3LlRFyOugm/QvhbyxBefhUwYeqjUz" +
      "BRMB0GA1UdDgQWBBT5wQnqXQbDTSwekP9isZgMU/OmZzAfBgNVHSMEGDAWgBT5wQnqXQbDTSwekP9isZgMU/OmZzAP" +
      "BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMDA0gAMEUCIQCp5H1Pxttp+eUjzOvFMbscC7B7oKdOv9iIMWdEe5bOmA" +
      "IgY0/OSSfY+eumxNURVu+Hl+woTRbUFpnCdDPRP7fFiBI=",
  },
  {
    signature: "ECDSA with SHA-512",
    hash: "sha512",
    der:
      "MIIBbzCCARWgAwIBAgIUVWa41pKZN0YMpjYGUU6s2Py1oyIwCgYIKoZIzj0EAwQwDDEKMAgGA1UEAwwBYTAgFw0yNj" +
      "ExMjIxMTM3MDBaGA8yMDUxMDcxNDExMzcwMFowDDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA" +
      "BPBIN3M7cYgxPIDIVV7/rGRexYRJGyuivCuZXd/tOlmLFwmrQtDCFKc3DqvYP3LlRFyOugm/QvhbyxBefhUwYeqjUz" +
      "BRMB0GA1UdDgQWBBT5wQnqXQbDTSwekP9isZgMU/OmZzAfBgNVHSMEGDAWgBT5wQnqXQbDTSwekP9isZgMU/OmZzAP" +
      "BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMEA0gAMEUCIATojfPkCPbF6m7VnRyX3t30ztu/xvfjsky8nGY+wlPlAi" +
      "EA87DaXzMrlvOi/4IcCvHABSrdiz2FM3X1+R6HCxMvRmA=",
  },
  {
    signature: "RSA with SHA-256",
    hash: "sha256",
    der:
      "MIIB9jCCAV+gAwIBAgIUR1QvgmNOoUCwxo9WQnp9l0w/8DcwDQYJKoZIhvcNAQELBQAwDDEKMAgGA1UEAwwBYTAgFw" +
      "0yNjExMjIxMTM3MDBaGA8yMDUxMDcxNDExMzcwMFowDDEKMAgGA1UEAwwBYTCBnzANBgkqhkiG9w0BAQEFAAOBjQAw" +
      "gYkCgYEAweRBqRhZkKPdjKrWRllSgeYF/PL1KBUSH9qeualTpBQK58IbyLm0TWb3fIrUQpGq1q2781JX8hzZMQRcAs" +
      "eDe90b+wkiIf9zFYqYsusVun3GQRlIMpLpNsLbmblY3g5oMjzB17wtkopHhckPy8W6wGUnrOJJGqT0zaGQZ+aSkvsC" +
      "AwEAAaNTMFEwHQYDVR0OBBYEFC/G5Gf4tmv9m/iKQrBYCOwTmc2EMB8GA1UdIwQYMBaAFC/G5Gf4tmv9m/iKQrBYCO" +
      "wTmc2EMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADgYEAT6//GpLFKiv+UTg5TwxH6U+SzNkdCO3pFrC1" +
      "MW9ZuoTjlBoo1CYNYkwtF0f1OJMAPS8ggqEBd5/x5KUYFcxdZNk6Fw5yEb7KuUs7lHLv9NB9yMvGIq8ARgr/YPEiS9" +
      "dj5s4fF6DdtSaBfAvrYfKMVEnNkN2I+yOeK/eHOu2GdgQ=",
  },
  {
    signature: "RSASSA-PSS with SHA-384",
    hash: "sha384",
    der:
      "MIICXjCCAZOgAwIBAgIUF6zTY0dgJDlch9xyDIVNp6YAkJswQQYJKoZIhvcNAQEKMDSgDzANBglghkgBZQMEAgIFAK" +
      "EcMBoGCSqGSIb3DQEBCDANBglghkgBZQMEAgIFAKIDAgEwMAwxCjAIBgNVBAMMAWEwIBcNMjYxMTIyMTEzNzAwWhgP" +
      "MjA1MTA3MTQxMTM3MDBaMAwxCjAIBgNVBAMMAWEwgZ8wDQYJKoZIhvcNAQEBBQADgY0AMIGJAoGBAMHkQakYWZCj3Y" +
      "yq1kZZUoHmBfzy9SgVEh/anrmpU6QUCufCG8i5tE1m93yK1EKRqtatu/NSV/Ic2TEEXALHg3vdG/sJIiH/cxWKmLLr" +
      "Fbp9xkEZSDKS6TbC25m5WN4OaDI8wde8LZKKR4XJD8vFusBlJ6ziSRqk9M2hkGfmkpL7AgMBAAGjUzBRMB0GA1UdDg" +
      "QWBBQvxuRn+LZr/Zv4ikKwWAjsE5nNhDAfBgNVHSMEGDAWgBQvxuRn+LZr/Zv4ikKwWAjsE5nNhDAPBgNVHRMBAf8E" +
      "BTADAQH/MEEGCSqGSIb3DQEBCjA0oA8wDQYJYIZIAWUDBAICBQChHDAaBgkqhkiG9w0BAQgwDQYJYIZIAWUDBAICBQ" +
      "CiAwIBMAOBgQC6HPcVVVdKSe5WJzHMTAriP/Ijinc4uy1epBQ1W4xjraWGdh/sXzZmRvEzzLUyfKeFTAQLVQwDqQ7h" +
      "TuL1YRYGaN2RklfxHChny9KHIm4LQAjFFBYUV6nXZ14E+vmUDb6iF7wsx44GVtuUlTc4jUovtyBO42YGTPsX4y7SBR" +
      "0yzQ==",
  },
  {
    signature: "Ed25519",
    hash: undefined,
    der:
      "MIIBLjCB4aADAgECAhQi7iup5w+baRY1lHPJ2jyzhlveXzAFBgMrZXAwDDEKMAgGA1UEAwwBYTAgFw0yNjExMjIxMT" +
      "M3MDBaGA8yMDUxMDcxNDExMzcwMFowDDEKMAgGA1UEAwwBYTAqMAUGAytlcAMhAIObaaesR8VpzJmH2DfscOHxvLG8" +
      "XwIV1j4EfxhjY4V/o1MwUTAdBgNVHQ4EFgQUJsn0+pka15Ih35IpMj9V9RYpey4wHwYDVR0jBBgwFoAUJsn0+pka15" +
      "Ih35IpMj9V9RYpey4wDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXADQQCxR8nJ3Zrff35Oz5sZVoW910bGz1kX8oJDbwhj" +
      "Ypvus84nFDYT6buiPPCWAup0Q5BKZeptJrY9sEL5kMiScPEG",
  },
];

describe("tls-server-end-point", () => {
  for (const { signature, hash, der } of CERTIFICATES) {
    it(`${signature}: ${hash ?? "no binding is defined"}`, () => {
      const certificate = fromBase64(der);
      assert.deepEqual(
        tlsServerEndPoint(certificate),
        hash && {
          type: "tls-server-end-point",
          data: new Uint8Array(createHash(hash).update(certificate).digest()),
        },
      );
    });
  }

  it("is undefined for a certificate that is cut, and never throws", () => {
    const certificate = fromBase64(CERTIFICATES[0]!.der);
    for (let length = 0; length < certificate.length; length++) {
      assert.equal(tlsServerEndPoint(certificate.subarray(0, length)), undefined);
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(5), (octets, depth) => {
      const nested = Uint8Array.of(...Array(depth).fill([0x30, 0x20]).flat(), ...octets);
      const binding = tlsServerEndPoint(nested);
      return binding === undefined || binding.data.length >= 32;
    }));
  });
});
