package durable

var (
	ParsePID  = parsePID
	FormatPID = formatPID
	TempName  = tempName
	IsTempOf  = isTempOf
)
