"""Encrypts and decrypts with the official library for Python and the material
providers library, as the guide of ABCI does: the protocol is in ../../doc.go."""

import json
import platform
import sys
from importlib.metadata import version

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    AesWrappingAlg,
    CreateMultiKeyringInput,
    CreateRawAesKeyringInput,
    CreateRawRsaKeyringInput,
    PaddingScheme,
)
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy

PROVIDERS = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())

PADDINGS = {
    "pkcs1": PaddingScheme.PKCS1,
    "oaep-sha1": PaddingScheme.OAEP_SHA1_MGF1,
    "oaep-sha256": PaddingScheme.OAEP_SHA256_MGF1,
    "oaep-sha384": PaddingScheme.OAEP_SHA384_MGF1,
    "oaep-sha512": PaddingScheme.OAEP_SHA512_MGF1,
}


def single(k):
    if k["type"] == "raw-aes":
        key = bytes.fromhex(k["key"])
        return PROVIDERS.create_raw_aes_keyring(
            input=CreateRawAesKeyringInput(
                key_namespace=k["namespace"],
                key_name=k["name"],
                wrapping_key=key,
                wrapping_alg=getattr(AesWrappingAlg, f"ALG_AES{8 * len(key)}_GCM_IV12_TAG16"),
            )
        )
    if k["type"] == "raw-rsa":
        pem = {f"{which}_key": k[which].encode() for which in ("public", "private") if k.get(which)}
        return PROVIDERS.create_raw_rsa_keyring(
            input=CreateRawRsaKeyringInput(
                key_namespace=k["namespace"], key_name=k["name"], padding_scheme=PADDINGS[k["padding"]], **pem
            )
        )
    raise ValueError(f"unknown keyring {k['type']}")


def combined(keyrings):
    """The first makes the data key, and any of them unwraps it."""
    generator, *children = [single(k) for k in keyrings]
    if not children:
        return generator
    return PROVIDERS.create_multi_keyring(
        input=CreateMultiKeyringInput(generator=generator, child_keyrings=children)
    )


def serve(q):
    if q["op"] == "version":
        libraries = ("aws-encryption-sdk", "aws-cryptographic-material-providers")
        names = ", ".join(f"{name} {version(name)}" for name in libraries)
        return {"library": f"{names}, python {platform.python_version()}"}
    config = {"commitment_policy": CommitmentPolicy[q["policy"]]} if q.get("policy") else {}
    client = aws_encryption_sdk.EncryptionSDKClient(**config)
    keyring = combined(q["keyrings"])
    with open(q["in"], "rb") as f:
        source = f.read()
    if q["op"] == "encrypt":
        options = {"encryption_context": q.get("context") or {}}
        if q.get("suite"):
            options["algorithm"] = Algorithm.get_by_id(int(q["suite"], 16))
        if q.get("frame"):
            options["frame_length"] = q["frame"]
        if q.get("block"):
            options["frame_length"] = 0
        out, header = client.encrypt(source=source, keyring=keyring, **options)
    elif q["op"] == "decrypt":
        out, header = client.decrypt(source=source, keyring=keyring)
    else:
        raise ValueError(f"unknown op {q['op']}")
    with open(q["out"], "wb") as f:
        f.write(out)
    return {"suite": f"0x{header.algorithm.algorithm_id:04x}", "context": dict(header.encryption_context)}


for line in sys.stdin:
    try:
        answer = serve(json.loads(line))
    except Exception as e:  # whatever the library refuses with
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
