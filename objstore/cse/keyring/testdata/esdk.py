"""The official AWS Encryption SDK for Python, as a partner of interop_test.go.

    esdk.py FROM TO KEY.pem

Decrypts every message in FROM and checks its plaintext, then writes messages
of every suite, keyring, frame length and size into TO. Names are
keyring.suite.frame.size; plaintext[i] = i % 251.
"""
import glob
import os
import subprocess
import sys

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    AesWrappingAlg,
    CreateRawAesKeyringInput,
    CreateRawRsaKeyringInput,
    PaddingScheme,
)
from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy

source, target, pem = sys.argv[1:]
with open(pem, "rb") as f:
    private = f.read()
public = subprocess.run(["openssl", "pkey", "-pubout"], input=private, stdout=subprocess.PIPE, check=True).stdout

mpl = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
keyrings = {}
for bits, algorithm in (
    (128, AesWrappingAlg.ALG_AES128_GCM_IV12_TAG16),
    (192, AesWrappingAlg.ALG_AES192_GCM_IV12_TAG16),
    (256, AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16),
):
    keyrings["aes%d" % bits] = mpl.create_raw_aes_keyring(CreateRawAesKeyringInput(
        key_namespace="tests", key_name="aes%d" % bits,
        wrapping_key=bytes(range(1, 1 + bits // 8)), wrapping_alg=algorithm))
for name, padding in (
    ("pkcs1", PaddingScheme.PKCS1),
    ("oaep-sha1", PaddingScheme.OAEP_SHA1_MGF1),
    ("oaep-sha256", PaddingScheme.OAEP_SHA256_MGF1),
    ("oaep-sha384", PaddingScheme.OAEP_SHA384_MGF1),
    ("oaep-sha512", PaddingScheme.OAEP_SHA512_MGF1),
):
    keyrings[name] = mpl.create_raw_rsa_keyring(CreateRawRsaKeyringInput(
        key_namespace="tests", key_name="rsa", padding_scheme=padding, public_key=public, private_key=private))


def plaintext(n):
    return bytes(i % 251 for i in range(n))


client = aws_encryption_sdk.EncryptionSDKClient()
old = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)

read = 0
for path in glob.glob(os.path.join(source, "*")):
    keyring, _, _, size = os.path.basename(path).split(".")
    with open(path, "rb") as f:
        got, _ = client.decrypt(source=f.read(), keyring=keyrings[keyring])
    assert got == plaintext(int(size)), path
    read += 1

written = 0
for name, keyring in keyrings.items():
    for suite in AlgorithmSuite:
        number = suite.algorithm_id
        rsa = not name.startswith("aes")  # takes its time
        for frame in (0, 512) if rsa else (0, 512, 4096):
            for size in (0, 513) if rsa else (0, 1, 511, 512, 513, 5000):
                message, _ = (client if number >= 0x0400 else old).encrypt(
                    source=plaintext(size), keyring=keyring, algorithm=suite, frame_length=frame,
                    encryption_context={"z": "1", "a": "2"})
                with open(os.path.join(target, "%s.%04x.%d.%d" % (name, number, frame, size)), "wb") as f:
                    f.write(message)
                written += 1
print(read, written)
