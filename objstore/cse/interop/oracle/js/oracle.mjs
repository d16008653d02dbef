// Encrypts and decrypts with the official library for JavaScript: the protocol
// is in ../../doc.go.
import { constants } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import {
  AlgorithmSuiteIdentifier,
  CommitmentPolicy,
  MultiKeyringNode,
  RawAesKeyringNode,
  RawAesWrappingSuiteIdentifier,
  RawRsaKeyringNode,
  buildClient,
} from '@aws-crypto/client-node'

function single({ type, namespace, name, key, padding, public: publicKey, private: privateKey, itsOrder }) {
  switch (type) {
    case 'raw-aes': {
      // Without a copy the key may be a view into Node's pool, which is refused.
      const unencryptedMasterKey = Uint8Array.from(Buffer.from(key, 'hex'))
      return new RawAesKeyringNode({
        keyNamespace: namespace,
        keyName: name,
        unencryptedMasterKey,
        wrappingSuite: RawAesWrappingSuiteIdentifier[`AES${8 * unencryptedMasterKey.length}_GCM_IV12_TAG16_NO_PADDING`],
        utf8Sorting: !itsOrder, // true: as the specification and all other libraries
      })
    }
    case 'raw-rsa':
      return new RawRsaKeyringNode({
        keyNamespace: namespace,
        keyName: name,
        rsaKey: { publicKey: publicKey || undefined, privateKey: privateKey || undefined },
        ...(padding === 'pkcs1'
          ? { padding: constants.RSA_PKCS1_PADDING }
          : { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: padding.replace('oaep-', '') }),
      })
    default:
      throw new Error(`unknown keyring ${type}`)
  }
}

// The first makes the data key, and any of them unwraps it.
function combined(keyrings) {
  const [generator, ...children] = keyrings.map(single)
  return children.length === 0 ? generator : new MultiKeyringNode({ generator, children })
}

async function serve(q) {
  if (q.op === 'version') {
    const { name, version } = createRequire(import.meta.url)('@aws-crypto/client-node/package.json')
    return { library: `${name} ${version}, node ${process.version}` }
  }
  const client = q.policy ? buildClient(CommitmentPolicy[q.policy]) : buildClient()
  const keyring = combined(q.keyrings)
  const input = readFileSync(q.in)
  let output, header
  switch (q.op) {
    case 'encrypt': {
      const options = { encryptionContext: q.context ?? {} }
      if (q.suite) options.suiteId = Number(q.suite)
      if (q.frame) options.frameLength = q.frame
      const { result, messageHeader } = await client.encrypt(keyring, input, options)
      output = result
      header = messageHeader
      break
    }
    case 'decrypt': {
      const { plaintext, messageHeader } = await client.decrypt(keyring, input)
      output = plaintext
      header = messageHeader
      break
    }
    default:
      throw new Error(`unknown op ${q.op}`)
  }
  writeFileSync(q.out, output)
  if (!(header.suiteId in AlgorithmSuiteIdentifier)) throw new Error(`suite ${header.suiteId}`)
  return { suite: '0x' + header.suiteId.toString(16).padStart(4, '0'), context: header.encryptionContext }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = await serve(JSON.parse(line))
  } catch (e) {
    answer = { error: e?.message || String(e) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
