package processv1

// What host and plugin agree on before the first call.
const (
	// ProtocolVersion is the version of this contract, in go-plugin's
	// handshake.
	ProtocolVersion = 1
	// CookieKey is the environment variable by which a plugin knows that a
	// host started it and not a person, CookieValue its value.
	CookieKey, CookieValue = "RA_PLUGIN", "ra.process.v1"
	// LifelineEnv is the environment variable with the descriptor of a pipe
	// that is never written to and that ends when the host does.
	LifelineEnv = "RA_PLUGIN_LIFELINE"
	// PluginName is the name that go-plugin dispenses the service under.
	PluginName = "search"
)

// Features of a plugin's description: the shares that it needs, and what it
// can do beyond the obligatory calls.
const (
	FeatureKeys    = "keys"
	FeatureValues  = "values"
	FeatureQueries = "queries" // Build reads the prefill's queries
	FeatureExport  = "export"  // serves Export and Import
)

// Limits.
const (
	// MaxMessage is the size of the largest message, in bytes.
	MaxMessage = 64 << 20
	// MaxChunk is the most data that a message of Export or Import carries.
	MaxChunk = 1 << 20
)
