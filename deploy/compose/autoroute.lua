-- Sends every CT and MR series to the node once nothing has been added to it for StableAge seconds: one association
-- a series, as a job that Orthanc shows and that can be resubmitted there. The node's own results are SEG and SR,
-- so they are not sent back.
function OnStableSeries(seriesId, tags, metadata)
   local modality = tags['Modality']
   if modality == 'CT' or modality == 'MR' then
      RestApiPost('/modalities/crlm-node/store', DumpJson({Resources = {seriesId}, Synchronous = false}))
   end
end
