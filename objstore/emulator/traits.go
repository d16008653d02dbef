package emulator

// Traits are what makes a bucket other than the account's own, next door.
type Traits struct {
	// Foreign: the bucket belongs to another account. It is in no list of
	// buckets, and whoever asks for it is denied.
	Foreign bool
	// RequesterPays: of a foreign bucket; who agrees to pay, by the header
	// x-amz-request-payer, may use it.
	RequesterPays bool
	// Region, when set, is where the bucket lies: requests that are signed for
	// another region are sent there by 301 PermanentRedirect.
	Region string
}

const headerPayer = "x-amz-request-payer"

// SetTraits changes what a bucket, which need not exist yet, is to the
// account. Traits do not outlive the server.
func (s *Server) SetTraits(bucket string, t Traits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traits[bucket] = t
}

func (s *Server) traitsOf(bucket string) Traits {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.traits[bucket]
}

// regionOf is where a bucket lies.
func (s *Server) regionOf(bucket string) string {
	if r := s.traitsOf(bucket).Region; r != "" {
		return r
	}
	return s.cfg.Region
}

// authenticate checks the signature by the region of the bucket.
func (s *Server) authenticate(c *call) (*signature, error) {
	creds := s.creds
	creds.region = s.regionOf(c.name)
	sig, err := creds.verify(c.r, c.query, s.signatureTime())
	if e, ok := err.(*apiError); ok && e.Code == "AuthorizationHeaderMalformed" && creds.region != s.cfg.Region {
		return nil, fail("PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.").
			with("Endpoint", s.Endpoint()).with("Bucket", c.name)
	}
	return sig, err
}

// admit denies what the bucket's owner does not allow.
func (s *Server) admit(c *call, bucket string) error {
	t := s.traitsOf(bucket)
	if t.Foreign && !(t.RequesterPays && c.r.Header.Get(headerPayer) == "requester") {
		return fail("AccessDenied", "Access Denied")
	}
	return nil
}
