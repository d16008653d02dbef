package emulator

import "strings"

// CreateKMSKey makes a key in the key service and returns its ARN. alias, with
// or without "alias/", names it too; "" is none. In the dialect minio, whose
// keys have plain names, it is the key's name.
func (s *Server) CreateKMSKey(alias string) (arn string, err error) {
	if alias != "" && !strings.HasPrefix(alias, "alias/") {
		alias = "alias/" + alias
	}
	key, err := s.kms.create("", alias, false)
	if err != nil {
		return "", err
	}
	return s.kms.keyARN(key.ID), nil
}

// DisableKMSKey disables the key that an id, alias or ARN names: whatever is
// encrypted under it cannot be read any more.
func (s *Server) DisableKMSKey(name string) error { return s.kms.enable(name, false) }

// EnableKMSKey undoes [Server.DisableKMSKey].
func (s *Server) EnableKMSKey(name string) error { return s.kms.enable(name, true) }

// RotateKMSKey gives the key new material. What the old encrypted stays
// readable.
func (s *Server) RotateKMSKey(name string) error { return s.kms.rotate(name) }

// ScheduleKMSKeyDeletion makes the key pending deletion, in 30 days.
func (s *Server) ScheduleKMSKeyDeletion(name string) error {
	_, err := s.kms.scheduleDeletion(kmsRequest{KeyId: name})
	return err
}

// DenyKMS refuses the account the use of a key, or allows it again. It does
// not outlive the server.
func (s *Server) DenyKMS(name string, deny bool) error {
	key, err := s.kms.find(name)
	if err != nil {
		return err
	}
	s.kms.mu.Lock()
	defer s.kms.mu.Unlock()
	s.kms.denied[key.ID] = deny
	return nil
}
