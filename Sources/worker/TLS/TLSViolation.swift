// What a client is sent for what it did to the record layer.

import Shared

extension TLSViolation {
    /// The alert that RFC 8446 asks for (6.2).
    var alert: Alert {
        switch self {
        case .recordTooShort, .notAuthentic: .badRecordMAC
        case .recordTooLong, .contentTooLong: .recordOverflow
        case .alertLength, .keyUpdateLength: .decodeError
        case .keyUpdateRequest: .illegalParameter
        case .unprotectedRecord, .keyNotUpdated, .noContentType, .unexpectedContentType, .interleavedHandshake,
            .emptyRecord, .idleRecords, .unexpectedHandshakeMessage, .bytesAfterKeyUpdate, .tooManyKeyUpdates:
            .unexpectedMessage
        }
    }
}
