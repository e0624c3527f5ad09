// An identity provider of other people (oidc-provider, a certified OpenID provider) on a loopback port of the system's choice.
// It says its issuer on a line of standard output, and does what lines of standard input ask: `add KEY ALG` publishes one more key,
// which signs from now on; `retire KEY` publishes the others alone; `admins URL` lets the door at this address send admins here.
// Each is answered with a line. It ends with its standard input.
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const packages = createRequire(join(process.env.MESH_PROVIDER_PACKAGES, 'index.js'))
const { default: Provider } = await import(pathToFileURL(packages.resolve('oidc-provider')))

const AUDIENCES = ['mesh', 'https://elsewhere.example']
const CALLBACK = '/admin/v1/sign-in/oidc/callback'
const LEFT = '/admin/v1/sign-in/oidc/left'
// Who may sign in with any password, and what the provider says of them.
const PEOPLE = { anna: ['ops'], ben: ['staff'], carl: [] }

const server = createServer((request, answer) => serve(request, answer))
let serve = (_, answer) => answer.writeHead(503).end()
let keys = []
let door = null

function key(kid, alg) {
  const kinds = {
    ES256: ['ec', { namedCurve: 'P-256' }],
    PS256: ['rsa', { modulusLength: 2048 }],
    EdDSA: ['ed25519', {}],
  }
  const { privateKey } = generateKeyPairSync(...kinds[alg])
  return { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }
}

function client(admins) {
  if (admins === null) return []
  return [{
    client_id: 'mesh-admin',
    client_secret: 'a secret: with /+&',
    redirect_uris: [admins + CALLBACK],
    post_logout_redirect_uris: [admins + LEFT],
    grant_types: ['authorization_code'],
    response_types: ['code'],
    id_token_signed_response_alg: keys[0].alg,
  }]
}

// A provider is made anew where its keys or clients change; its memory (sessions, grants) is one for all of the process.
function start() {
  const alg = keys[0].alg
  const provider = new Provider(`http://127.0.0.1:${server.address().port}`, {
    jwks: { keys },
    cookies: { keys: ['a key of a test'] },
    clients: [
      {
        client_id: 'batch',
        client_secret: 's3cret:/ &+',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: alg,
      },
      ...client(door),
    ],
    enabledJWA: {
      idTokenSigningAlgValues: ['ES256', 'PS256', 'EdDSA'],
    },
    pkce: { required: () => true },
    claims: { openid: ['sub'], groups: ['groups'] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: PEOPLE[id] ?? [] }) }),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_, resource) => {
          const audience = AUDIENCES.find((one) => resource === one || resource === `urn:${one}`)
          return {
            scope: 'infer',
            audience: audience ?? resource,
            accessTokenTTL: 300,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg } },
          }
        },
      },
    },
  })
  serve = provider.callback()
}

function obey(line) {
  const [word, first, second] = line.split(' ')
  if (word === 'add') keys.unshift(key(first, second))
  else if (word === 'retire') keys = keys.filter((one) => one.kid !== first)
  else if (word === 'admins') door = first
  else throw new Error(`not known: ${line}`)
  start()
}

server.listen(0, '127.0.0.1', () => {
  obey('add first ES256')
  console.log(`http://127.0.0.1:${server.address().port}`)
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      obey(line)
      console.log('done')
    })
    .on('close', () => process.exit(0))
})
